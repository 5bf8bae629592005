"""Every aggregator on the same folds, seeds and settings, against the mean-pool floor.

    python benchmarks/model_tables.py run OUT.csv rcc=tcga_rcc.npz nsclc=tcga_nsclc.npz [--models abmil,mean]
    python benchmarks/model_tables.py table OUT.csv

Each run trains with cross-entropy and the defaults of ``TrainingConfig`` on a patient-grouped fold,
keeps the epoch that is best on the inner validation part, and scores the test part once: nothing is
chosen on it.

``floor_train`` is a logistic regression on the standardised mean tile (scikit-learn), fitted to the
training slides as the models are; the validation part decides how strongly it is regularised
(``STRENGTHS``) as it decides the models' epoch. ``floor`` is the same fitted to training and
validation slides together, a quarter more of them. Finished runs stay in the table: stop it at any
time and call it again. The cheap models come first, and all of them get a seed before any gets the
next.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from research.loss_study.table import StudyTable
from wsi_ncmi.cohorts import Cohort, Fold, SplitConfig, Splits, make_splits, open_bag_source
from wsi_ncmi.losses import loss_config
from wsi_ncmi.metrics.classification import classification_metrics
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import BagCache, LabelledSlides, RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.scoring import embed, f1_and_recall, probabilities_of

CHEAP = ("mean", "max", "abmil", "abmil_plain", "clam_sb", "clam_mb", "dsmil", "aem", "acmil", "dtfd")
COSTLY = ("asmil", "vit", "transmil")
FLOORS = ("floor", "floor_train")
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
KEY = ("model", "cohort", "fold", "seed")
COLUMNS = (*KEY, "macro_f1", "auroc", "accuracy", "best_epoch", "cpu_seconds", "predicted")
"""``predicted``: class position of each test slide, a digit each, in the fold's order."""


@dataclass(frozen=True)
class Task:
    """A cohort with its folds and its bags in memory."""

    cohort: Cohort
    splits: Splits
    cache: BagCache

    def part(self, slide_ids: Sequence[str]) -> LabelledSlides:
        """Slides with their classes."""
        of = self.cohort
        y = [of.class_index[of.by_slide[slide_id].label] for slide_id in slide_ids]
        return LabelledSlides(tuple(slide_ids), np.array(y, dtype=np.int64))


def open_task(path: Path) -> Task:
    """Opens a packed file that carries its labels."""
    source = open_bag_source(path)
    cohort = source.embedded_cohort()
    if cohort is None:
        raise SystemExit(f"{path} carries no labels.")
    return Task(cohort, make_splits(cohort, SplitConfig()), BagCache(source, 2**30))


def planned(models: Sequence[str], cohorts: Sequence[str], folds: int, seeds: int) -> Iterator[tuple]:
    """(model, cohort, fold, seed): the floors, then seed by seed the cheap models, then the costly ones."""
    yield from ((floor, cohort, fold, 0) for floor in FLOORS for cohort in cohorts for fold in range(folds))
    for group in (CHEAP, COSTLY):
        for seed in range(seeds):
            for model in group:
                if model in models:
                    yield from ((model, cohort, fold, seed) for cohort in cohorts for fold in range(folds))


def floor_probabilities(task: Task, fold: Fold, parts: Sequence[str]) -> NDArray[np.float64]:
    """Logistic regression on the mean tile, regularised as the validation part likes it best."""

    def means(slide_ids: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([task.cache.bag(slide_id).float().mean(0).numpy() for slide_id in slide_ids])

    def fitted(strength: float, slide_ids: Sequence[str]) -> Pipeline:
        classifier = LogisticRegression(C=strength, max_iter=5000)
        return make_pipeline(StandardScaler(), classifier).fit(means(slide_ids), task.part(slide_ids).y)

    held = task.part(fold.validation)

    def score(strength: float) -> float:
        predicted = fitted(strength, fold.train).predict(means(held.slide_ids))
        return f1_and_recall(held.y, predicted, len(task.cohort.classes))[0]

    known = [slide_id for part in parts for slide_id in fold.part(part)]
    return fitted(max(STRENGTHS, key=score), known).predict_proba(means(fold.test))


def model_probabilities(task: Task, fold: Fold, model: str, seed: int) -> tuple[NDArray[np.float64], int]:
    """Trains, and predicts the test part; also the kept epoch."""
    fitted = fit_in_memory(
        task.cache,
        task.part(fold.train),
        task.part(fold.validation),
        len(task.cohort.classes),
        RunConfig(
            model=model_config(name=model),
            loss=loss_config(name="ce"),
            training=TrainingConfig(batch_size=16, device="cpu"),
            seed=seed,
        ),
    )
    z = embed(fitted.aggregator, task.cache, fold.test, torch.device("cpu"))
    return probabilities_of(fitted.criterion, z), fitted.best_epoch


def row_of(task: Task, model: str, cohort: str, fold: int, seed: int) -> Mapping[str, Any]:
    """One run, from training to its line in the table."""
    began, best_epoch = time.process_time(), 0
    if model in FLOORS:
        parts = ("train", "validation") if model == "floor" else ("train",)
        p = floor_probabilities(task, task.splits.folds[fold], parts)
    else:
        p, best_epoch = model_probabilities(task, task.splits.folds[fold], model, seed)
    classes = task.cohort.classes
    truth = [task.cohort.by_slide[slide_id].label for slide_id in task.splits.folds[fold].test]
    predicted = p.argmax(axis=1)
    found = classification_metrics(truth, p, [classes[i] for i in predicted], classes)
    return {
        "model": model, "cohort": cohort, "fold": fold, "seed": seed,
        "macro_f1": f"{found['macro_f1']:.6f}", "auroc": f"{found['auroc_macro_ovr']:.6f}",
        "accuracy": f"{found['accuracy']:.6f}", "best_epoch": best_epoch,
        "cpu_seconds": f"{time.process_time() - began:.2f}", "predicted": "".join(map(str, predicted)),
    }  # fmt: skip


def run(out: Path, cohorts: Mapping[str, Path], models: Sequence[str], seeds: int) -> None:
    """Does the runs that the table lacks."""
    table = StudyTable(out, KEY, COLUMNS)
    tasks = {name: open_task(path) for name, path in cohorts.items()}
    todo = [
        key
        for key in planned(models, list(tasks), len(next(iter(tasks.values())).splits.folds), seeds)
        if tuple(map(str, key)) not in table.done
    ]
    for number, (model, cohort, fold, seed) in enumerate(todo, start=1):
        row = row_of(tasks[cohort], model, cohort, fold, seed)
        table.append(row)
        print(
            f"{number}/{len(todo)} {model} {cohort} fold {fold} seed {seed}: macro-F1 "
            f"{row['macro_f1']}, AUC {row['auroc']}, {row['cpu_seconds']} s",
            flush=True,
        )


def markdown(out: Path) -> str:
    """The table of the documentation: mean over folds and seeds, SD of the seeds' means, CPU time by ABMIL's.

    A seed that lacks a fold of a cohort does not count there: folds differ more than models do.
    """
    runs = pd.read_csv(out, dtype={"predicted": str})
    cohorts = list(dict.fromkeys(runs["cohort"]))
    folds = runs.groupby("cohort")["fold"].transform("nunique")
    runs = runs[runs.groupby(["model", "cohort", "seed"])["fold"].transform("nunique") == folds]
    seconds = runs.groupby("model")["cpu_seconds"].mean()
    lines = [
        "| model | "
        + " | ".join(f"{c.upper()} macro-F1 | {c.upper()} AUC" for c in cohorts)
        + " | CPU time ÷ `abmil` | runs |",
        "|---|" + "---:|" * (2 * len(cohorts) + 2),
    ]
    for model in (*FLOORS, *CHEAP, *COSTLY):
        of_model = runs[runs["model"] == model]
        cells = []
        for cohort in cohorts:
            by_seed = of_model[of_model["cohort"] == cohort].groupby("seed")[["macro_f1", "auroc"]].mean()
            for metric in ("macro_f1", "auroc"):
                spread = f" ± {by_seed[metric].std():.3f}" if len(by_seed) > 1 else ""
                cells.append(f"{by_seed[metric].mean():.3f}{spread}" if len(by_seed) else "open")
        cost = f"{seconds[model] / seconds['abmil']:.1f}" if len(of_model) else "open"
        lines.append(f"| `{model}` | " + " | ".join(cells) + f" | {cost} | {len(of_model)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs, or prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("cohorts", nargs="*", metavar="NAME=FEATURES")
    parser.add_argument("--models", type=lambda text: text.split(","), default=[*CHEAP, *COSTLY])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.what == "table":
        print(markdown(given.out))
        return
    named = dict(text.split("=", 1) for text in given.cohorts)
    run(given.out, {name: Path(path) for name, path in named.items()}, given.models, given.seeds)


if __name__ == "__main__":
    main()
