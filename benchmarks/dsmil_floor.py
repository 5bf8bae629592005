"""DSMIL beside the mean-pool floor: its attention, and the effect of its settings.

    python benchmarks/dsmil_floor.py OUT.csv rcc=tcga_rcc.npz nsclc=tcga_nsclc.npz [--settings published,slow]

Trains as ``model_tables.py`` does and looks at training and validation parts alone; no test part is read.
``entropy`` is that of a bag's attention over log N, mean over classes and validation slides: 1 is mean
pooling. Finished runs stay in the table.
"""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from model_tables import Task, open_task

from research.loss_study.table import StudyTable
from wsi_ncmi.cohorts import Fold
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import ModelConfig, model_config
from wsi_ncmi.mil.base import Aggregator
from wsi_ncmi.mil.config import DsmilConfig
from wsi_ncmi.training import RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.scoring import embed, f1_and_recall, probabilities_of

CPU = torch.device("cpu")
SETTINGS: Mapping[str, tuple[ModelConfig, TrainingConfig]] = {
    "published": (model_config(name="dsmil"), TrainingConfig(batch_size=16, device="cpu")),
    "standardised": (
        model_config(name="dsmil", standardise=True),
        TrainingConfig(batch_size=16, device="cpu"),
    ),
    "no_critical_loss": (
        model_config(name="dsmil", dsmil=DsmilConfig(instance_weight=0.0)),
        TrainingConfig(batch_size=16, device="cpu"),
    ),
    "slow": (model_config(name="dsmil"), TrainingConfig(batch_size=16, device="cpu", learning_rate=2e-4)),
}
KEY = ("setting", "cohort", "fold", "seed")
COLUMNS = (*KEY, "train_macro_f1", "validation_macro_f1", "entropy")


@torch.no_grad()
def attention_entropy(model: Aggregator, task: Task, fold: Fold) -> float:
    """Entropy of the attention over log N: mean over the classes and the validation slides."""
    model.eval()
    found = []
    for slide_id in fold.validation:
        (batch,) = task.cache.whole_batches((slide_id,))
        branches = model(batch).branches
        assert branches is not None
        if len(branches) > 1:
            found.append(float(-branches.xlogy(branches).sum(0).mean()) / math.log(len(branches)))
    return sum(found) / len(found)


def row_of(task: Task, setting: str, cohort: str, fold_number: int, seed: int) -> Mapping[str, Any]:
    """One run, from training to its line in the table."""
    fold, classes = task.splits.folds[fold_number], len(task.cohort.classes)
    model, training = SETTINGS[setting]
    train, held = task.part(fold.train), task.part(fold.validation)
    fitted = fit_in_memory(
        task.cache,
        train,
        held,
        classes,
        RunConfig(model=model, loss=loss_config(name="ce"), training=training, seed=seed),
    )

    def macro_f1(part: Any) -> str:
        p = probabilities_of(fitted.criterion, embed(fitted.aggregator, task.cache, part.slide_ids, CPU))
        return f"{f1_and_recall(part.y, p.argmax(axis=1), classes)[0]:.6f}"

    return {
        "setting": setting, "cohort": cohort, "fold": fold_number, "seed": seed,
        "train_macro_f1": macro_f1(train), "validation_macro_f1": macro_f1(held),
        "entropy": f"{attention_entropy(fitted.aggregator, task, fold):.4f}",
    }  # fmt: skip


def main() -> None:
    """Does the runs that the table lacks, and prints the means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("cohorts", nargs="+", metavar="NAME=FEATURES")
    parser.add_argument("--settings", type=lambda text: text.split(","), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    table = StudyTable(given.out, KEY, COLUMNS)
    for name, path in (item.split("=", 1) for item in given.cohorts):
        task = open_task(Path(path))
        for setting in given.settings:
            for fold in range(len(task.splits.folds)):
                for seed in range(given.seeds):
                    if tuple(map(str, (setting, name, fold, seed))) not in table.done:
                        table.append(row_of(task, setting, name, fold, seed))
    print(pd.read_csv(given.out).groupby(["cohort", "setting"])[list(COLUMNS[4:])].mean().round(3))


if __name__ == "__main__":
    main()
