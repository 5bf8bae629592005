"""Learning curves of gated ABMIL from drawn weights and from those of a model of another cohort.

    python -m research.warm_start OUT.csv rcc=tcga_rcc.npz nsclc=tcga_nsclc.npz [--seeds 3]
    python -m research.warm_start OUT.csv

For both directions: a model is trained on one cohort (first fold, defaults, cross-entropy), and starts the
training on the other, whose head is drawn anew. Scores are macro-F1 on the inner validation part after each
epoch, over three folds, with all training slides and with a tenth of them; no test part is read. Without
cohorts the table is printed: mean over folds and seeds, ± the standard deviation of the seeds' means.
"""

import argparse
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.model_tables import Task, open_task
from research.loss_study.table import StudyTable
from wsi_ncmi.losses import loss_config
from wsi_ncmi.training import RunConfig, TrainingConfig, fit, fit_in_memory

EPOCHS, FOLDS, SHARES = 10, 3, (1.0, 0.1)
SHOWN = (1, 2, 3, 5, 10)
KEY = ("cohort", "start", "share", "fold", "seed")
COLUMNS = (*KEY, *(f"epoch_{n}" for n in range(1, EPOCHS + 1)))
CONFIG = RunConfig(loss=loss_config("ce"), training=TrainingConfig(batch_size=16, device="cpu"))


def share_of(slide_ids: tuple[str, ...], share: float, seed: int) -> tuple[str, ...]:
    """A part of the slides, drawn by the seed."""
    count = round(share * len(slide_ids))
    return tuple(sorted(np.random.default_rng(seed).permutation(slide_ids)[:count].tolist()))


def curve(task: Task, fold: int, share: float, seed: int, init: Path | None) -> list[float]:
    """Validation macro-F1 after each epoch."""
    parts = task.splits.folds[fold]
    config = replace(CONFIG, seed=seed, init=init, training=replace(CONFIG.training, epochs=EPOCHS))
    fitted = fit_in_memory(
        task.cache, task.part(share_of(parts.train, share, seed)), task.part(parts.validation),
        len(task.cohort.classes), config,
    )  # fmt: skip
    return [row["val_macro_f1"] for row in fitted.curves]


def markdown(path: Path) -> str:
    """Scores after some epochs."""
    runs = pd.read_csv(path)
    names = [f"epoch_{n}" for n in SHOWN]
    lines = ["| cohort | share | start | " + " | ".join(f"epoch {n}" for n in SHOWN) + " |",
             "|---|---:|---|" + "---:|" * len(SHOWN)]  # fmt: skip
    for (cohort, share, start), of in runs.groupby(["cohort", "share", "start"], sort=False):
        seeds = of.groupby("seed")[names].mean()
        cells = [f"{seeds[n].mean():.3f} ± {seeds[n].std():.3f}" for n in names]
        lines.append(f"| {cohort} | {share:g} | {start} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Does the runs that the table lacks, or prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("cohorts", nargs="*", metavar="NAME=FEATURES")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if not given.cohorts:
        print(markdown(given.out))
        return
    table = StudyTable(given.out, KEY, COLUMNS)
    tasks = {name: open_task(Path(path)) for name, path in (text.split("=", 1) for text in given.cohorts)}
    with tempfile.TemporaryDirectory() as folder:
        for seed, (name, task) in itertools.product(range(given.seeds), tasks.items()):
            (other,) = (each for each in tasks if each != name)
            init = Path(folder) / f"{other}_{seed}"
            for share, fold, start in itertools.product(SHARES, range(FOLDS), ("drawn", other)):
                key = (name, start, share, fold, seed)
                if tuple(map(str, key)) in table.done:
                    continue
                if start == other and not init.is_dir():
                    of = tasks[other]
                    fit(of.cache, of.splits.folds[0], of.cohort, replace(CONFIG, seed=seed), out=init)
                found = curve(task, fold, share, seed, init if start == other else None)
                cells = {f"epoch_{n}": f"{value:.6f}" for n, value in enumerate(found, start=1)}
                table.append(dict(zip(KEY, key, strict=True)) | cells)


if __name__ == "__main__":
    main()
