"""Unreleased forms of the losses beside NCMI's on inner folds: the bound, the code words or the decision.

    python -m research.unreleased_forms OUT.csv NAME=FEATURES.npz [NAME=FEATURES.npz ...] [--folds 0 1 2]
        [--regimes full imbalanced noise_20 patients_10] [--losses ce gce.7 …]

Trains each loss once in each cell (seed 0) and refits its decision as ``research.refitted_decisions`` does.
Stop it at any time; the same command resumes. No test fold is read. Rows as in
``benchmarks/results/ncmi/explore_second.csv``.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import wsi_ncmi.training.fitting as fitting
import wsi_ncmi.training.loop as loop
from research.loss_study.regimes import REGIMES, prepare_parts
from research.loss_study.run import StudyCohort, open_study_cohort
from research.refitted_decisions import CPU, decisions, distances
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.losses import NCMILoss, build_loss, loss_config
from wsi_ncmi.losses.base import Criterion, project
from wsi_ncmi.losses.decision import CalibratedDecision
from wsi_ncmi.losses.functional import generalised_log
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import BagCache, RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.scoring import embed, f1_and_recall, validation_scores

COLUMNS = ("cohort", "regime", "fold", "loss", "balance", "ridge", "macro_f1", "auroc", "contamination")
KEPT = (("none", "none"), ("0.5", "20"), ("0.75", "5"), ("0.75", "20"), ("0.75", "60"))


class GeneralisedCrossEntropy(Criterion):
    """(1 − P_y^q)/q on plain logits (Zhang & Sabuncu, arXiv 1805.07836): the bound without code words."""

    def __init__(self, classes: int, width: int, q: float) -> None:
        super().__init__(classes, width)
        self.head, self.q = nn.Linear(width, classes), q

    def batch_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch."""
        return generalised_log(cross_entropy(project(self.head, z), y, reduction="none"), self.q).mean()

    def log_proba(self, z: Tensor) -> Tensor:
        """Log-probabilities (B, C)."""
        return project(self.head, z).log_softmax(dim=-1)


class Contaminated(Criterion):
    """−log((1 − ε) P_y + ε/C): a share ε of the labels says nothing; ε fixed, or following by EM.

    Args:
        classes: Number of classes C.
        width: Width of the embedding.
        start: First ε.
        momentum: Weight of the past in ε; 1 keeps it fixed.
        form: NCMI's form whose class scores make P; None: plain logits.
    """

    def __init__(
        self, classes: int, width: int, start: float, momentum: float, form: dict[str, object] | None
    ) -> None:
        super().__init__(classes, width)
        self.head = nn.Linear(width, classes) if form is None else None
        self.inner = None if form is None else NCMILoss(classes, width, preset="log_reverse", **form)
        self.momentum = momentum
        self.register_buffer("share", torch.tensor(start))

    def _log_p(self, z: Tensor) -> Tensor:
        if self.inner is None:
            return project(self.head, z).log_softmax(dim=-1)
        return (-self.inner.distances(z)).log_softmax(dim=-1)

    def batch_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch; in training ε takes its closed-form step."""
        own = self._log_p(z).gather(1, y.unsqueeze(1)).squeeze(1) + (1 - self.share).log()
        void = (self.share / self.num_classes).log().expand_as(own)
        total = torch.logaddexp(own, void)
        if self.training:
            new = (void - total).exp().mean().detach()
            self.share.mul_(self.momentum).add_((1 - self.momentum) * new).clamp_(1e-4, 0.6)
        return -total.mean()

    def log_proba(self, z: Tensor) -> Tensor:
        """Log-probabilities (B, C)."""
        return self._log_p(z)


Make = Callable[[int, int, Sequence[int]], Criterion]


def _built(**options: object) -> Make:
    return lambda classes, width, counts: build_loss(loss_config(**options), classes, width, counts)


def _contaminated(start: float, momentum: float, form: dict[str, object] | None) -> Make:
    return lambda classes, width, counts: Contaminated(classes, width, start, momentum, form)


def _orthogonal(q: float) -> Make:
    return _built(preset="log_reverse", power=q)


LOSSES: dict[str, Make] = {
    "ce": _built(name="ce"),
    "wce": _built(name="weighted_ce"),
    "ls.2": _built(name="label_smoothing", label_smoothing=0.2),
    "gce.7": lambda classes, width, counts: GeneralisedCrossEntropy(classes, width, 0.7),
    "orth.5": _orthogonal(0.5),
    "orth.3": _orthogonal(0.3),
    "orth.15": _orthogonal(0.15),
    "orth0": _orthogonal(0.0),
    "mixce": _contaminated(0.2, 0.98, None),
    "mixce.3m": _contaminated(0.3, 0.995, None),
    "fixce.2": _contaminated(0.2, 1.0, None),
    "mixorth": _contaminated(0.2, 0.98, {}),
    "fixorth.1": _contaminated(0.1, 1.0, {}),
    "fixorth.2": _contaminated(0.2, 1.0, {}),
    "lr1e-3": _orthogonal(0.15),
    "lr2e-3": _orthogonal(0.15),
    "T.5": _built(preset="log_reverse", power=0.15, temperature=0.5),
    "T2": _built(preset="log_reverse", power=0.15, temperature=2.0),
    "tau.5": _built(preset="log_reverse", power=0.15, tau=0.5),
    "tau2": _built(preset="log_reverse", power=0.15, tau=2.0),
    "m16": _built(preset="log_reverse", power=0.15, symbols=16),
    "m32": _built(preset="log_reverse", power=0.15, symbols=32),
    "k1.5": _built(preset="log_reverse", power=0.15, code_scale=1.5),
    "k6": _built(preset="log_reverse", power=0.15, code_scale=6.0),
    "softmax": _built(preset="log_reverse", power=0.15, symbol_map="softmax"),
    "shift.5": _built(preset="log_reverse", power=0.15, prior_shift=0.5),
    "q0 tau.5": _built(preset="log_reverse", power=0.0, tau=0.5),
    "q.3 tau.5": _built(preset="log_reverse", power=0.3, tau=0.5),
    "q.15 tau.25": _built(preset="log_reverse", power=0.15, tau=0.25),
    "q.15 m32 tau.125": _built(preset="log_reverse", power=0.15, tau=0.125, symbols=32),
    "q.15 tau.125": _built(preset="log_reverse", power=0.15, tau=0.125),
    "q.3 tau.25": _built(preset="log_reverse", power=0.3, tau=0.25),
    "fix.1 tau.5": _contaminated(0.1, 1.0, {"tau": 0.5}),
    "decided q.15 tau.5": _built(preset="log_reverse", power=0.15, tau=0.5),
    "decided ce": _built(name="ce"),
    "mixsim": _contaminated(0.2, 0.98, {"code_words": "simplex"}),
}


def _decided_scores(criterion: Criterion, z: Tensor, y: Tensor) -> dict[str, float]:
    """Scores of a part by which the epoch is chosen, macro-F1 after the decision was fitted to that part."""
    scores = validation_scores(criterion, z, y)
    known = distances(criterion, z)
    decision = CalibratedDecision(criterion.num_classes, 1.0, ridge=20.0).double()
    decision.fit(known, y, 0.75)
    found = decision(known).argmax(dim=1).numpy()
    return {**scores, "val_macro_f1": f1_and_recall(y.numpy(), found, criterion.num_classes)[0]}


RATES = {"lr1e-3": 1e-3, "lr2e-3": 2e-3}
"""Rates of AdamW other than 5e-4."""


def main() -> None:
    """Trains what the table lacks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("cohorts", nargs="+")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--regimes", nargs="+", default=["full", "imbalanced", "noise_20", "patients_10"])
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    given = parser.parse_args()
    paths = {name: Path(path) for name, path in (text.split("=", 1) for text in given.cohorts)}
    done = set()
    if given.out.exists():
        with given.out.open(encoding="utf-8", newline="") as handle:
            done = {(r["cohort"], r["regime"], int(r["fold"]), r["loss"]) for r in csv.DictReader(handle)}
    opened = {n: (open_study_cohort(str(p)), BagCache(open_bag_source(p), 2**30)) for n, p in paths.items()}
    cells = [(f, r, n) for f in given.folds for r in given.regimes for n in opened]
    with given.out.open("a", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        if handle.tell() == 0:
            writer.writerow(COLUMNS)
        for fold, regime, name in cells:
            for loss in given.losses:
                if (name, regime, fold, loss) not in done:
                    writer.writerows(score(*opened[name], name, regime, fold, loss))
                    handle.flush()


def score(
    data: StudyCohort, cache: BagCache, name: str, regime: str, fold: int, loss: str
) -> list[tuple[object, ...]]:
    """Trains one loss in one cell; a row for each decision."""
    classes = len(data.cohort.classes)
    parts = prepare_parts(data.cohort, data.inner.folds[fold], REGIMES[regime], fold)
    # The trainer builds the loss that the config names; here the cell's criterion takes its place.
    make = mock.patch.object(
        fitting, "build_loss", lambda _, count, width, counts: LOSSES[loss](count, width, counts)
    )
    scores_of = _decided_scores if loss.startswith("decided") else validation_scores
    with make, mock.patch.object(loop, "validation_scores", scores_of):
        training = TrainingConfig(
            epochs=REGIMES[regime].epochs,
            learning_rate=RATES.get(loss, 5e-4),
            batch_size=16,
            decision="none",
            device="cpu",
        )
        run = RunConfig(model=model_config(), loss=loss_config(), training=training)
        fitted = fit_in_memory(cache, parts.train, parts.validation, classes, run)
    known, new = (
        distances(fitted.criterion, embed(fitted.aggregator, cache, part.slide_ids, CPU))
        for part in (parts.validation, parts.test)
    )
    found = decisions(known, torch.from_numpy(parts.validation.y), new, classes)
    scores = (-new).softmax(dim=1).numpy()
    auroc = roc_auc_score(parts.test.y, scores if classes > 2 else scores[:, 1], multi_class="ovr")
    share = float(getattr(fitted.criterion, "share", float("nan")))
    rows = []
    for decision in KEPT:
        macro_f1 = f1_and_recall(parts.test.y, found[decision].numpy(), classes)[0]
        rows.append(
            (name, regime, fold, loss, *decision, round(macro_f1, 5), round(auroc, 5), round(share, 4))
        )
    return rows


if __name__ == "__main__":
    main()
