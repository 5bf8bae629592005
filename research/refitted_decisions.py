"""Decisions refitted on trained models, scored on inner folds: the part of the loss and that of its decision.

    python -m research.refitted_decisions OUT.csv NAME=FEATURES.npz [NAME=FEATURES.npz ...] [--folds 0 1 2]

Trains each loss once in each cell and fits the decision to validation with several class weights
(``balance``) and ridges; ``none`` is the nearest centroid, or the argmax. No test fold is read. Rows as in
``benchmarks/results/ncmi/decision.csv``.
"""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor

from research.loss_study.regimes import REGIMES, prepare_parts
from research.loss_study.run import open_study_cohort
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.losses import NCMILoss, loss_config
from wsi_ncmi.losses.decision import CalibratedDecision
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import BagCache, RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.scoring import embed, f1_and_recall

LOSSES = {
    "ce": loss_config(name="ce"),
    "wce": loss_config(name="weighted_ce"),
    "rev.5": loss_config(preset="log_reverse", power=0.5),
    "ratio.5": loss_config(preset="ratio", temperature=1.0, power=0.5),
    "rev.5shift.5": loss_config(preset="log_reverse", power=0.5, prior_shift=0.5),
}
COLUMNS = ("cohort", "regime", "fold", "loss", "balance", "ridge", "macro_f1")


def main() -> None:
    """Trains, decides, and adds rows to the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("cohorts", nargs="+")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    paths = {name: Path(path) for name, path in (text.split("=", 1) for text in given.cohorts)}
    with given.out.open("a", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        if handle.tell() == 0:
            writer.writerow(COLUMNS)
        for name, path in paths.items():
            data, cache = open_study_cohort(str(path)), BagCache(open_bag_source(path), 2**30)
            classes = len(data.cohort.classes)
            for fold in given.folds:
                for regime in REGIMES.values():
                    parts = prepare_parts(data.cohort, data.inner.folds[fold], regime, fold)
                    options = TrainingConfig(
                        epochs=regime.epochs, batch_size=16, decision="none", device="cpu"
                    )
                    for loss, of_loss in LOSSES.items():
                        fitted = fit_in_memory(
                            cache,
                            parts.train,
                            parts.validation,
                            classes,
                            RunConfig(model=model_config(), loss=of_loss, training=options),
                        )
                        known, new = (
                            distances(fitted.criterion, embed(fitted.aggregator, cache, part.slide_ids, CPU))
                            for part in (parts.validation, parts.test)
                        )
                        y = torch.from_numpy(parts.validation.y)
                        for (balance, ridge), predicted in decisions(known, y, new, classes).items():
                            score = f1_and_recall(parts.test.y, predicted.numpy(), classes)[0]
                            cell = (name, regime.name, fold, loss, balance, ridge, round(score, 5))
                            writer.writerow(cell)
                        handle.flush()


CPU = torch.device("cpu")


@torch.no_grad()
def distances(criterion: torch.nn.Module, z: Tensor) -> Tensor:
    """Divergences from the centroids, or −log p of a loss without centroids, (n, C)."""
    if isinstance(criterion, NCMILoss):
        return criterion.distances(z).double()
    found: Tensor = -criterion.log_proba(z).double()  # type: ignore[operator]
    return found


def decisions(known: Tensor, y: Tensor, new: Tensor, classes: int) -> dict[tuple[str, str], Tensor]:
    """(balance, ridge) → predicted classes of the new slides."""
    found = {("none", "none"): new.argmin(dim=1)}
    for balance in (0.0, 0.25, 0.5, 0.75, 1.0):
        for ridge in (1.0, 5.0, 20.0, 60.0):
            decision = CalibratedDecision(classes, 1.0, ridge=ridge).double()
            decision.fit(known, y, balance)
            found[f"{balance:g}", f"{ridge:g}"] = decision(new).argmax(dim=1)
    return found


if __name__ == "__main__":
    main()
