"""Forms of NCMI on long tails that the package doesn't have, on inner folds: annealing, sub-bags, instances.

    python -m research.long_tail_forms OUT.csv NAME=FEATURES,TABLE [...] [--forms "q 0 to 0.3" ...]

Each is NCMI with ``prior_shift`` 0.5 and weight decay 1 (seed 0, inner fold 0), its own decision without the
class means, and one change. Stop it at any time; the same command resumes. No test part is read.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

import wsi_ncmi.training.fitting as fitting
from research.loss_study.regimes import REGIMES, prepare_parts
from research.loss_study.run import StudyCohort, open_study_cohort
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.losses import NCMILoss, loss_config
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.mil import BagBatch, build_aggregator, model_config
from wsi_ncmi.mil.abmil import GatedABMIL
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput
from wsi_ncmi.training import BagCache, RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.scoring import embed, f1_and_recall, probabilities_of

COLUMNS = ("cohort", "form", "macro_f1", "balanced_accuracy", "best_epoch")
_FORM = {"prior_shift": 0.5, "class_mean_decision": False}


class Annealed(NCMILoss):
    """q goes evenly from one value to another over the epochs."""

    def __init__(self, *arguments: object, start: float, end: float, **options: object) -> None:
        super().__init__(*arguments, **options)
        self._ends = (start, end)

    def start_epoch(self, done: float) -> None:
        """Sets the epoch's q."""
        start, end = self._ends
        self.form = replace(self.form, power=start + (end - start) * done)


class OfSubBags(NCMILoss):
    """The loss of two random halves of each slide, and a multiple of the CMI between them.

    The halves of a slide come one after the other; the CMI of a slide is the mean divergence of its two
    symbol distributions from their mean, which no label is needed for.
    """

    def __init__(self, *arguments: object, within: float, **options: object) -> None:
        super().__init__(*arguments, **options)
        self._within = within

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch, (2B, E) in training with (B,) labels."""
        if len(z) == len(y):
            return super().forward(z, y)
        loss = super().forward(z, y.repeat_interleave(2))
        if self._within:
            log_p = self.log_symbols(z).view(len(y), 2, -1)
            centre = log_p.exp().mean(dim=1, keepdim=True).log()
            loss = loss + self._within * (log_p.exp() * (log_p - centre)).sum(dim=2).mean()
        return loss


class Halved(GatedABMIL):
    """In training every bag of two tiles or more is cut into two random halves, which are bags then."""

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds the halves (2B, E) in training, the bags (B, E) else."""
        if not self.training:
            return super().embed(batch, labels)
        rows, lengths, start = [], [], 0
        for length in batch.lengths.tolist():
            order = start + torch.randperm(length)
            half = (length + 1) // 2
            rows += [order[:half], order[half:] if length > 1 else order]
            lengths += [len(rows[-2]), len(rows[-1])]
            start += length
        halves = BagBatch(batch.features[torch.cat(rows)], torch.tensor(lengths))
        return super().embed(halves, labels)


class OfInstances(GatedABMIL):
    """Adds the loss of the most attended tile of every bag, as if it were a bag of its own (CLAM's place)."""

    criterion: list[Criterion]
    weight = 0.3

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag; in training the tiles' loss is an auxiliary term."""
        output = super().embed(batch, labels)
        if not self.training or labels is None:
            return output
        ends = batch.lengths.cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        best = [a + int(output.attention[a:b].detach().argmax()) for a, b in zip(starts, ends, strict=True)]
        tiles = self.dropout(self.projection(self.prepared(batch)[best]).relu())
        loss = self.weight * self.criterion[0].batch_loss(tiles, labels)
        return replace(output, auxiliary={**output.auxiliary, "instances": loss})


Make = Callable[[int, int, Sequence[int]], Criterion]


def _loss(kind: type[NCMILoss], **options: object) -> Make:
    return lambda classes, width, counts: kind(classes, width, class_counts=counts, **_FORM, **options)


FORMS: dict[str, tuple[type[Aggregator], Make]] = {
    "shift 0.5": (GatedABMIL, _loss(NCMILoss)),
    "q 0 to 0.3": (GatedABMIL, _loss(Annealed, start=0.0, end=0.3)),
    "q 0.3 to 0": (GatedABMIL, _loss(Annealed, start=0.3, end=0.0)),
    "halves": (Halved, _loss(OfSubBags, within=0.0)),
    "halves, CMI within": (Halved, _loss(OfSubBags, within=1.0)),
    "most attended tile": (OfInstances, _loss(NCMILoss)),
}


def score(data: StudyCohort, cache: BagCache, name: str, form: str) -> tuple[object, ...]:
    """Trains one form on inner fold 0; its row."""
    kind, make = FORMS[form]
    classes = len(data.cohort.classes)
    parts = prepare_parts(data.cohort, data.inner.folds[0], REGIMES["full"], 0)

    def modules(config: RunConfig, width: int, counts: Sequence[int]) -> tuple[nn.Module, Criterion]:
        torch.manual_seed(fitting.derive_seed(0, "aggregator"))
        aggregator = build_aggregator(config.model, width, classes)
        aggregator.__class__ = kind
        torch.manual_seed(fitting.derive_seed(0, "criterion"))
        criterion = make(classes, aggregator.embedding_width, counts)
        if isinstance(aggregator, OfInstances):
            aggregator.criterion = [criterion]  # in a list: it is no part of the model
        return aggregator, criterion

    with mock.patch.object(fitting, "build_modules", modules):
        training = TrainingConfig(batch_size=16, weight_decay=1.0, device="cpu")
        run = RunConfig(model=model_config(name="abmil"), loss=loss_config(), training=training)
        fitted = fit_in_memory(cache, parts.train, parts.validation, classes, run)
    z = embed(fitted.aggregator, cache, parts.test.slide_ids, torch.device("cpu"))
    predicted = probabilities_of(fitted.criterion, z).argmax(axis=1)
    f1, recall = f1_and_recall(parts.test.y, predicted, classes)
    return name, form, round(f1, 5), round(recall, 5), fitted.best_epoch


def main() -> None:
    """Trains what the table lacks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("cohorts", nargs="+")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    given = parser.parse_args()
    done = set()
    if given.out.exists():
        with given.out.open(encoding="utf-8", newline="") as handle:
            done = {(row["cohort"], row["form"]) for row in csv.DictReader(handle)}
    with given.out.open("a", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        if handle.tell() == 0:
            writer.writerow(COLUMNS)
        for name, place in (text.split("=", 1) for text in given.cohorts):
            missing = [form for form in given.forms if (name, form) not in done]
            if missing:
                data = open_study_cohort(place)
                cache = BagCache(open_bag_source(Path(place.partition(",")[0])), 2**31)
            for form in missing:
                writer.writerow(score(data, cache, name, form))
                handle.flush()


if __name__ == "__main__":
    main()
