"""``wsi-ncmi synth``."""

from __future__ import annotations

from typing import Annotated

import typer

from wsi_ncmi.cli.common import named_path
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FLAGS = ConfigFlags(
    "wsi_ncmi.synthesis.SynthesisConfig",
    {
        "slides": Flag(default=50, help="Sound slides with tissue, 5 a patient."),
        "seed": Flag(help="Same seed, same bytes."),
        "faults": Flag(help="Add faulty slides: no mpp, truncated, text, duplicate, equal names."),
    },
)


def command(
    given: Given,
    out: Annotated[str, typer.Argument(metavar="OUT", help="Output folder.", rich_help_panel="Input")],
    workers: Annotated[
        int | None,
        typer.Option(metavar="INTEGER", min=1, rich_help_panel="Machine", help="Processes (one a core)."),
    ] = None,
) -> None:
    """Make a synthetic CAMELYON-17-like cohort with labels and ground truth.

    Example: wsi-ncmi synth cohort --slides 50 --seed 0
    """
    from wsi_ncmi.core.files import ensure_folder
    from wsi_ncmi.parallel.limits import affordable_workers
    from wsi_ncmi.synthesis import make_cohort
    from wsi_ncmi.workflows import JobResult

    config = given.read({"include_empty": False})
    folder = ensure_folder(named_path(out, "OUT"))
    cohort = make_cohort(folder, config, workers=workers or affordable_workers(), progress=given.progress)
    given.finish(JobResult({"slides": cohort.slides, "labels": cohort.labels, "truth": cohort.truth}))
