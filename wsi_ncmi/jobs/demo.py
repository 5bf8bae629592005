"""The demo: a synthetic cohort, then the whole job on it, offline."""

from __future__ import annotations

from pathlib import Path

from wsi_ncmi.files import ensure_folder
from wsi_ncmi.jobs.config_file import load_config
from wsi_ncmi.jobs.result import JobResult
from wsi_ncmi.jobs.subtyping import run_job
from wsi_ncmi.progress import NullProgress, ProgressReporter
from wsi_ncmi.synthesis import SynthesisOptions, make_cohort

__all__ = ["run_demo"]


def run_demo(
    out: Path,
    progress: ProgressReporter | None = None,
    *,
    synthesis: SynthesisOptions | None = None,
    overrides: tuple[str, ...] = (),
) -> JobResult:
    """Makes the demo's cohort and runs the shipped configuration ``demo`` on it.

    Args:
        out: Folder for ``slides/``, ``labels.csv``, ``truth/``, ``features/`` and ``run/``.
        progress: Told about every stage.
        synthesis: The cohort; default: 10 patients × 5 slides and one without tissue.
        overrides: ``a.b=value`` changes of the configuration.

    Returns:
        Files of the job; ``report`` is what to look at.
    """
    from wsi_ncmi.scale import affordable_workers

    progress = progress or NullProgress()
    ensure_folder(out)
    cohort = make_cohort(
        out, synthesis or SynthesisOptions(), workers=affordable_workers(), progress=progress
    )
    places = (f"slides={cohort.slides}", f"labels={cohort.labels}", f"out={out}")
    config = load_config("demo", (*places, *overrides))
    return run_job(config, progress)
