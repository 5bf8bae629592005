"""Runs a stage of the study of ``docs/development/ncmi-protocol.md``.

    python -m research.loss_study STAGE OUT NAME=FEATURES[,TABLE] [NAME=FEATURES[,TABLE] ...] [options]

STAGE is explore, sensitivity, ablation, leads, models, tune, choose, confirm or tables. The same command
resumes where it was stopped: ``--minutes 30`` is a chunk. TABLE has published parts, or each slide's source
site.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from research.loss_study.job import study_stage
from research.loss_study.plan import STAGES
from research.loss_study.settings import GRIDS
from wsi_ncmi.core.errors import WsiNcmiError
from wsi_ncmi.core.progress import progress_for


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a stage and prints what it wrote; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m research.loss_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=(*STAGES, "choose", "tables"))
    parser.add_argument("out", type=Path)
    parser.add_argument("cohorts", nargs="*", metavar="NAME=FEATURES[,TABLE]")
    parser.add_argument("--regimes", type=lambda text: text.split(","), default=None)
    parser.add_argument("--losses", type=lambda text: text.split(","), default=None)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=None)
    parser.add_argument("--model", default="abmil")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--grid", choices=tuple(GRIDS), default="short")
    parser.add_argument("--best", type=int, default=None, help="settings of each loss, with --of")
    parser.add_argument("--of", default=None, metavar="NAME", help="cohort on which --best was measured")
    parser.add_argument("--rivals", type=int, default=None, help="rivals of confirm, by their inner mean")
    parser.add_argument("--rate", type=float, default=None, help="of all settings, with weight decay .01")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=None)
    given = parser.parse_args(arguments)
    cohorts = dict(text.split("=", 1) for text in given.cohorts)
    try:
        result = study_stage(
            given.stage, given.out, cohorts, regimes=given.regimes, losses=given.losses, folds=given.folds,
            seeds=given.seeds, model=given.model, batch_size=given.batch_size, grid=given.grid,
            best=None if given.best is None else (given.best, given.of), rivals=given.rivals, rate=given.rate,
            workers=given.workers, minutes=given.minutes, progress=progress_for(),
        )  # fmt: skip
    except WsiNcmiError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(*(f"failed: {failure}" for failure in result.failures), *result.notes, sep="\n")
    print(*(f"{name}: {path}" for name, path in result.files.items()), sep="\n")
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
