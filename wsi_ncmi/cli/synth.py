"""``wsi-ncmi synth``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, run_verb

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "synth"


def command(
    out: Annotated[Path, typer.Argument(help="Output folder.")],
    slides: Annotated[int, typer.Option(min=1, help="Sound slides with tissue, 5 a patient.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    faults: Annotated[
        bool,
        typer.Option("--faults", help="Add faulty slides: no mpp, truncated, text, duplicate, equal names."),
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes (one a core).")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Make a synthetic CAMELYON-17-like cohort with labels and ground truth.

    Example: wsi-ncmi synth cohort --slides 50 --seed 0
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.core.files import ensure_folder
        from wsi_ncmi.parallel.limits import affordable_workers
        from wsi_ncmi.synthesis import SynthesisConfig, make_cohort
        from wsi_ncmi.workflows import JobResult

        ensure_folder(out)
        cohort = make_cohort(
            out,
            SynthesisConfig(slides=slides, seed=seed, faults=faults, include_empty=False),
            workers=workers or affordable_workers(),
            progress=progress,
        )
        return JobResult({"slides": cohort.slides, "labels": cohort.labels, "truth": cohort.truth})

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
