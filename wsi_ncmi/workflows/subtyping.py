"""The whole job: from a folder of slides and a labels table to the report."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from wsi_ncmi.cohorts import read_labels
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import ensure_folder, write_text
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.workflows.config import JobConfig, recorded_yaml
from wsi_ncmi.workflows.extraction import extract
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.training import TrainingRequest, train
from wsi_ncmi.workflows.variants import run_variants

__all__ = ["run_job"]


def run_job(
    config: JobConfig,
    progress: ProgressReporter | None = None,
    *,
    overwrite: bool = False,
    allow_leak: bool = False,
    only: Collection[str] = (),
) -> JobResult:
    """Runs a whole job, or all its variants; whatever is done already is not done again.

    Args:
        config: The job.
        progress: Told about slides and epochs.
        overwrite: Replace features and runs of another configuration.
        allow_leak: Train on a split that leaks.
        only: Variants to run; empty = all.

    Returns:
        Files of extraction and training together, and all failures.

    Raises:
        InputError: The configuration or an input is wrong; nothing was started.
    """
    progress = progress or NullProgress()
    if config.variants or only:
        return run_variants(
            config, only, lambda variant, folder: _run(variant, folder, progress, overwrite, allow_leak)
        )
    return _run(config, config.out / "run", progress, overwrite, allow_leak)


def _run(
    config: JobConfig, run_folder: Path, progress: ProgressReporter, overwrite: bool, allow_leak: bool
) -> JobResult:
    if config.features is None and config.slides is None:
        raise InputError(
            "The configuration names no slides; add 'slides: FOLDER' (or 'features: FOLDER' for ready "
            "features), for example with --set slides=FOLDER."
        )
    if config.features is None and config.labels is None:
        raise InputError(
            "The configuration names no labels; add 'labels: FILE.csv', for example with "
            "--set labels=FILE.csv."
        )
    if config.labels is not None:
        # A fault in the labels must not wait until hours of extraction are over.
        read_labels(config.labels, group=_group(config))
    ensure_folder(config.out)
    files: dict[str, Path] = {}
    failures: list[str] = []
    notes: list[str] = []
    features, ledger = config.features, None
    if features is None:
        extracted = extract(config, progress)
        files.update(extracted.files)
        failures += extracted.failures
        notes += extracted.notes
        features, ledger = extracted.files["features"], extracted.files["ledger"]
    trained = train(
        TrainingRequest.of_config(
            config,
            features,
            run_folder,
            overwrite=overwrite,
            allow_leak=allow_leak,
            ledger=ledger,
            whole_job=True,
        ),
        progress,
    )
    # The configuration in force, every default written out, absolute paths cut to their last part.
    files["config"] = run_folder.parent / f"{'config' if run_folder.name == 'run' else run_folder.name}.yaml"
    write_text(files["config"], recorded_yaml(config))
    return JobResult(
        files={**files, **trained.files},
        failures=(*failures, *trained.failures),
        notes=(*notes, *trained.notes),
    )


def _group(config: JobConfig) -> str | None:
    return "slide_id" if config.split.group == "slide_id" else None
