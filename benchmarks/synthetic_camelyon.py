"""Losses on a drawn CAMELYON-like cohort: 100 patients × 5 slides, centres 0–2 train, centres 3–4 test.

    python benchmarks/synthetic_camelyon.py make WORK [--patients 100] [--workers 2]
    python benchmarks/synthetic_camelyon.py score WORK OUT.csv --chosen chosen.json [--losses ncmi,ce]
    python benchmarks/synthetic_camelyon.py table OUT.csv

``make`` draws the slides (seed 17), extracts features of the encoder ``descriptor`` and deletes the slides.
``score`` trains gated ABMIL with each loss in the setting that ``study choose`` wrote, seeds 0–4; seed s
validates on another fifth of the training centres' patients. The test centres choose nothing. Finished runs
stay in the table; the same command resumes.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch

from research.loss_study.results import chosen_settings
from research.loss_study.table import StudyTable
from wsi_ncmi.cohorts import Cohort, SplitConfig, make_splits, match_features, open_bag_source, read_labels
from wsi_ncmi.metrics import information_metrics
from wsi_ncmi.metrics.classification import classification_metrics
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import BagCache, RunConfig, TrainingConfig, fit_in_memory
from wsi_ncmi.training.fitting import labelled_part
from wsi_ncmi.training.scoring import embed, probabilities_of

KEY = ("loss", "setting", "seed")
METRICS = ("macro_f1", "balanced_accuracy", "auroc_macro_ovr", "nll", "brier", "ece")
COLUMNS = (*KEY, *METRICS, "cmi", "gamma", "ncmi", "best_epoch", "predicted")
TEST_CENTRES = ("centre_3", "centre_4")
EPOCHS = 50


def make(work: Path, patients: int, workers: int) -> None:
    """Draws, extracts, deletes."""
    wsi_ncmi = [sys.executable, "-m", "wsi_ncmi"]
    drawn, shared = work / "drawn", ["--workers", str(workers)]
    if (work / "labels.csv").exists() and not drawn.exists():
        return  # made already
    if not (work / "labels.csv").exists():
        subprocess.run(
            [*wsi_ncmi, "synth", str(drawn), "--slides", str(5 * patients), "--seed", "17", *shared],
            check=True,
        )
        shutil.copy(drawn / "labels.csv", work / "labels.csv")
    subprocess.run(
        [*wsi_ncmi, "extract", str(drawn / "slides"), "--out", str(work / "out"), *shared], check=True
    )
    shutil.rmtree(drawn)


def score(work: Path, out: Path, chosen: Path, losses: list[str] | None) -> None:
    """Trains and tests what the table lacks."""
    source = open_bag_source(work / "out" / "features" / "descriptor")
    cohort = match_features(read_labels(work / "labels.csv"), source).cohort
    rows = [row for row in cohort.rows if row.centre not in TEST_CENTRES]
    known = Cohort(tuple(rows), cohort.classes)
    test = labelled_part(
        "test", tuple(row.slide_id for row in cohort.rows if row.centre in TEST_CENTRES), cohort
    )
    folds = make_splits(known, SplitConfig(folds=5)).folds
    cache, table = BagCache(source, 2**30), StudyTable(out, KEY, COLUMNS)
    truth = [cohort.classes[i] for i in test.y]
    for seed, fold in enumerate(folds):
        train = labelled_part("training", (*fold.train, *fold.validation), cohort)
        validation = labelled_part("validation", fold.test, cohort)
        for setting in chosen_settings(chosen.parent):
            key = (setting.loss, setting.name, str(seed))
            if key in table.done or (losses and setting.loss not in losses):
                continue
            options = TrainingConfig(
                epochs=EPOCHS, learning_rate=setting.learning_rate, weight_decay=setting.weight_decay,
                batch_size=16, device="cpu",
            )  # fmt: skip
            fitted = fit_in_memory(
                cache,
                train,
                validation,
                len(cohort.classes),
                RunConfig(model=model_config(), loss=setting.options, training=options, seed=seed),
            )
            z = embed(fitted.aggregator, cache, test.slide_ids, torch.device("cpu"))
            p = probabilities_of(fitted.criterion, z)
            found = p.argmax(axis=1)
            values = classification_metrics(truth, p, [cohort.classes[i] for i in found], cohort.classes)
            table.append(
                {
                    **dict(zip(KEY, key, strict=True)),
                    **{name: f"{values[name]:.6f}" for name in METRICS},
                    **{name: f"{value:.6f}" for name, value in information_metrics(p, test.y).items()},
                    "best_epoch": fitted.best_epoch,
                    "predicted": "".join(map(str, found.tolist())),
                }
            )


def summarise(path: Path) -> str:
    """Mean and standard deviation over seeds, best macro-F1 first, as a Markdown table."""
    found = (
        pd.read_csv(path, dtype={"predicted": str}).groupby("loss")[[*METRICS, "ncmi"]].agg(["mean", "std"])
    )
    found = found.sort_values(("macro_f1", "mean"), ascending=False)
    lines = ["| loss | macro-F1 | balanced accuracy | AUC | NLL | ECE |", "|---|---|---|---|---|---|"]
    for loss, row in found.iterrows():
        cells = [
            f"{row[name, 'mean']:.3f} ± {row[name, 'std']:.3f}"
            for name in ("macro_f1", "balanced_accuracy", "auroc_macro_ovr", "nll", "ece")
        ]
        lines.append(f"| `{loss}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Does what the first argument says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="what", required=True)
    maker = parts.add_parser("make")
    maker.add_argument("work", type=Path)
    maker.add_argument("--patients", type=int, default=100)
    maker.add_argument("--workers", type=int, default=2)
    scorer = parts.add_parser("score")
    scorer.add_argument("work", type=Path)
    scorer.add_argument("out", type=Path)
    scorer.add_argument("--chosen", type=Path, required=True)
    scorer.add_argument("--losses", type=lambda text: text.split(","), default=None)
    parts.add_parser("table").add_argument("out", type=Path)
    given = parser.parse_args()
    if given.what == "make":
        given.work.mkdir(parents=True, exist_ok=True)
        make(given.work, given.patients, given.workers)
    elif given.what == "score":
        score(given.work, given.out, given.chosen, given.losses)
    else:
        print(summarise(given.out))


if __name__ == "__main__":
    main()
