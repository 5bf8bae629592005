"""NCMI's default with and without the class means in its decision, on the cells of the first study.

    python -m research.class_means_guard OUT.csv NAME=FEATURES.npz [NAME=FEATURES.npz ...]

Five test folds by patient × five regimes, seed 0: each model is trained once and decides twice. Stop it at
any time; the same command resumes. Prints the mean difference of each cell.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from research.loss_study.regimes import REGIMES, prepare_parts
from research.loss_study.run import open_study_cohort
from research.loss_study.table import StudyTable
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.losses import NCMILoss
from wsi_ncmi.training import BagCache, RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.scoring import embed, f1_and_recall, probabilities_of

KEY = ("cohort", "regime", "fold")
COLUMNS = (*KEY, "with", "without")


def main() -> None:
    """Trains what the table lacks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("cohorts", nargs="+", metavar="NAME=FEATURES.npz")
    given = parser.parse_args()
    table = StudyTable(given.out, KEY, COLUMNS)
    for name, place in (text.split("=", 1) for text in given.cohorts):
        data, cache = open_study_cohort(place), BagCache(open_bag_source(Path(place)), 2**30)
        classes = len(data.cohort.classes)
        for regime in REGIMES.values():
            for number, fold in enumerate(data.outer.folds):
                key = (name, regime.name, str(number))
                if key in table.done:
                    continue
                parts = prepare_parts(data.cohort, fold, regime, number)
                training = TrainingConfig(epochs=regime.epochs, batch_size=16, device="cpu")
                fitted = fit_in_memory(
                    cache, parts.train, parts.validation, classes, RunConfig(training=training)
                )
                z = embed(fitted.aggregator, cache, parts.test.slide_ids, torch.device("cpu"))
                criterion = fitted.criterion
                assert isinstance(criterion, NCMILoss)
                scores = [_macro_f1(criterion, z, parts.test.y)]
                state = criterion.state_dict()
                criterion.load_state_dict({k: v for k, v in state.items() if "class_means" not in k})
                scores.append(_macro_f1(criterion, z, parts.test.y))
                values = dict(zip(COLUMNS, (*key, *(f"{score:.6f}" for score in scores)), strict=True))
                table.append(values)
    rows = pd.read_csv(given.out)
    rows["points"] = 100 * (rows["with"] - rows["without"])
    print(rows.groupby(["cohort", "regime"])[["without", "with", "points"]].mean().round(3))
    print(f"all: {rows['points'].mean():+.2f}")


def _macro_f1(criterion: NCMILoss, z: torch.Tensor, y: object) -> float:
    return f1_and_recall(y, probabilities_of(criterion, z).argmax(axis=1), criterion.num_classes)[0]


if __name__ == "__main__":
    main()
