"""The demo: a synthetic cohort, then the whole job on it, offline."""

from __future__ import annotations

from pathlib import Path

from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.synthesis import SynthesisConfig, make_cohort
from wsi_ncmi.workflows.config import load_config
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.run import run_job

__all__ = ["run_demo"]


def run_demo(
    out: Path,
    progress: ProgressReporter | None = None,
    *,
    synthesis: SynthesisConfig | None = None,
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
    from wsi_ncmi.parallel.limits import affordable_workers

    progress = progress or NullProgress()
    ensure_folder(out)
    cohort = make_cohort(out, synthesis or SynthesisConfig(), workers=affordable_workers(), progress=progress)
    places = (f"slides={cohort.slides}", f"labels={cohort.labels}", f"out={out}")
    config = load_config("demo", (*places, *overrides))
    return run_job(config, progress)
