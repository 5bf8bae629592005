"""``linear`` and ``mlp`` on mean-pooled bags, against logistic regression on the same vectors.

    python -m research.slide_vectors choose OUT.csv NAME=FEATURES.npz[:SPLITS.csv] [...]
    python -m research.slide_vectors test OUT.csv NAME=FEATURES.npz[:SPLITS.csv] [...]
    python -m research.slide_vectors table OUT.csv

Every slide of a packed cohort becomes its mean vector. ``choose`` trains each setting with seed 0 and scores
the inner validation parts alone; ``test`` takes, of each cohort, model and loss, the setting with the lowest
validation loss, and scores the test parts with three seeds. The loss also keeps the epoch: macro-F1 of a
small part favours the epoch, and the setting, that varies most. ``floor`` is scikit-learn's logistic
regression, its strength chosen on the validation part and fitted to the training part, as
``benchmarks/model_tables.py`` has it. Finished runs stay in the table.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.model_tables import Task, floor_probabilities
from research.loss_study.table import StudyTable
from wsi_ncmi.cohorts import SplitConfig, make_splits, open_bag_source, read_any_splits
from wsi_ncmi.features.interchange.packed import PackedColumns, PackedSet, write_packed
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import BagCache, RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.scoring import embed, f1_and_recall, probabilities_of

SETTINGS: Mapping[str, dict[str, float]] = {
    "default": {},
    "decay 1": {"weight_decay": 1.0},
    "decay 1, average 0.99": {"weight_decay": 1.0, "ema": 0.99},
}
CELLS = tuple(itertools.product(("linear", "mlp"), ("ce", "ncmi")))
KEY = ("stage", "cohort", "model", "loss", "setting", "fold", "seed")
COLUMNS = (*KEY, "macro_f1", "balanced_accuracy", "val_loss", "best_epoch")


def open_vectors(path: Path, splits: Path | None, folder: Path) -> Task:
    """A packed cohort with the mean vector of each slide in place of its tiles."""
    packed = PackedSet(path)
    out = folder / path.name
    lengths = [1] * len(packed.slide_ids)
    means = {s: packed.features(s).astype(np.float32).mean(axis=0, keepdims=True) for s in packed.slide_ids}
    columns = PackedColumns(packed.slide_ids, lengths, packed.texts, packed.encoder(), "slide")
    write_packed(out, columns, packed.table.shape[1], lambda s: means[s].astype(np.float16))
    source = open_bag_source(out)
    cohort = source.embedded_cohort()
    assert cohort is not None
    found = read_any_splits(splits, cohort) if splits else make_splits(cohort, SplitConfig())
    return Task(cohort, found, BagCache(source, 2**30))


def runs_of(stage: str, name: str, task: Task, table: Path) -> Iterator[tuple]:
    """The keys of a stage, in order."""
    folds = range(len(task.splits.folds))
    if stage == "choose":
        for (model, loss), setting, fold in itertools.product(CELLS, SETTINGS, folds):
            yield stage, name, model, loss, setting, fold, 0
        return
    yield from ((stage, name, "floor", "ce", "strength", fold, 0) for fold in folds)
    chosen = chosen_settings(pd.read_csv(table))
    for seed, (model, loss), fold in itertools.product(range(3), CELLS, folds):
        yield stage, name, model, loss, chosen[name, model, loss], fold, seed


def chosen_settings(runs: pd.DataFrame) -> Mapping[tuple[str, str, str], str]:
    """(cohort, model, loss) → the setting with the lowest mean loss on the validation parts."""
    key = ["cohort", "model", "loss", "setting"]
    means = runs[runs["stage"] == "choose"].groupby(key)["val_loss"].mean()
    return {cell: str(of.idxmin()[-1]) for cell, of in means.groupby(level=[0, 1, 2])}


def row_of(task: Task, key: tuple) -> Mapping[str, object]:
    """One run, from training to its line in the table."""
    stage, _, model, loss, setting, number, seed = key
    fold = task.splits.folds[number]
    classes = len(task.cohort.classes)
    epoch, val_loss = 0, ""
    if model == "floor":
        p = floor_probabilities(task, fold, ("train",))
    else:
        fitted = fit_in_memory(
            task.cache, task.part(fold.train), task.part(fold.validation), classes,
            RunConfig(
                model=model_config(model), loss=loss_config(loss), seed=seed,
                training=TrainingConfig(batch_size=16, device="cpu", selection="loss", **SETTINGS[setting]),
            ),
        )  # fmt: skip
        epoch = fitted.best_epoch
        val_loss = f"{fitted.curves[epoch - 1]['val_loss']:.6f}"
        part = fold.validation if stage == "choose" else fold.test
        z = embed(fitted.aggregator, task.cache, part, torch.device("cpu"))
        p = probabilities_of(fitted.criterion, z)
    truth = task.part(fold.validation if stage == "choose" else fold.test).y
    f1, recall = f1_and_recall(truth, p.argmax(axis=1), classes)
    found = {"macro_f1": f"{f1:.6f}", "balanced_accuracy": f"{recall:.6f}"}
    found |= {"val_loss": val_loss, "best_epoch": epoch}
    return dict(zip(KEY, key, strict=True)) | found


def markdown(path: Path) -> str:
    """Test scores: mean over folds and seeds, ± the standard deviation of the seeds' means."""
    runs = pd.read_csv(path, keep_default_na=False)
    runs = runs[runs["stage"] == "test"]
    lines = [
        "| cohort | model | loss | setting | macro-F1 | balanced accuracy |",
        "|---|---|---|---|---:|---:|",
    ]
    key = ["cohort", "model", "loss", "setting"]
    for cell, of in runs.groupby(key, sort=False):
        seeds = of.groupby("seed")[["macro_f1", "balanced_accuracy"]].mean()
        shown = [
            f"{seeds[m].mean():.3f}" + (f" ± {seeds[m].std():.3f}" if len(seeds) > 1 else "") for m in seeds
        ]
        lines.append("| " + " | ".join(map(str, (*cell, *shown))) + " |")
    return "\n".join(lines)


def main() -> None:
    """Does the runs that the table lacks, or prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("choose", "test", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("cohorts", nargs="*", metavar="NAME=FEATURES[:SPLITS]")
    given = parser.parse_args()
    if given.what == "table":
        print(markdown(given.out))
        return
    table = StudyTable(given.out, KEY, COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        for text in given.cohorts:
            name, _, files = text.partition("=")
            features, _, splits = files.partition(":")
            task = open_vectors(Path(features), Path(splits) if splits else None, Path(folder))
            for key in runs_of(given.what, name, task, given.out):
                if tuple(map(str, key)) not in table.done:
                    table.append(row_of(task, key))


if __name__ == "__main__":
    main()
