"""Losses on the same folds, seeds and initial weights.

    python pipelines/loss_comparison.py FEATURES OUT [a.b=value ...]
    python pipelines/loss_comparison.py study STAGE OUT NAME=FEATURES [NAME=FEATURES ...] [options]

The first form does what ``wsi-ncmi compare`` does. FEATURES carries its labels (a packed .npz), or add
``labels=FILE.csv``. The second runs the study of ``docs/ncmi-protocol.md``; STAGE is explore, sensitivity,
ablation, tune, choose, confirm or tables. It goes on where it was stopped: ``--minutes 30`` is a chunk.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from research.loss_study import study_stage
from research.loss_study.plan import STAGES
from wsi_ncmi.core.progress import progress_for
from wsi_ncmi.workflows import JobResult
from wsi_ncmi.workflows.comparison import train_configured

LOSSES = ["ncmi", "ce", "weighted_ce"]


def main(arguments: list[str]) -> JobResult:
    """Compares the losses on the features named first, into the folder named second."""
    features, out, *overrides = arguments
    values = {"features": Path(features), "losses": LOSSES, "seeds": 5, "name": "Losses compared"}
    return train_configured(values, Path(out), overrides, progress_for())


def study(arguments: list[str]) -> JobResult:
    """Runs a stage of the study."""
    parser = argparse.ArgumentParser(prog="loss_comparison.py study")
    parser.add_argument("stage", choices=(*STAGES, "choose", "tables"))
    parser.add_argument("out", type=Path)
    parser.add_argument("cohorts", nargs="*", metavar="NAME=FEATURES")
    parser.add_argument("--regimes", type=lambda text: text.split(","), default=None)
    parser.add_argument("--losses", type=lambda text: text.split(","), default=None)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=None)
    parser.add_argument("--model", default="abmil")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=None)
    given = parser.parse_args(arguments)
    cohorts = {name: Path(path) for name, path in (text.split("=", 1) for text in given.cohorts)}
    return study_stage(
        given.stage, given.out, cohorts, regimes=given.regimes, losses=given.losses, folds=given.folds,
        seeds=given.seeds, model=given.model, batch_size=given.batch_size, workers=given.workers,
        minutes=given.minutes, progress=progress_for(),
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    if sys.argv[1] == "study":
        result = study(sys.argv[2:])
        print(*(f"failed: {failure}" for failure in result.failures), *result.notes, sep="\n")
        print(*(f"{name}: {path}" for name, path in result.files.items()), sep="\n")
    else:
        result = main(sys.argv[1:])
        print(result.files["differences"].read_text(encoding="utf-8"))
        print(f"report: {result.files['report']}")
    sys.exit(result.exit_code)
