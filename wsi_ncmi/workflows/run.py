"""The whole job: slides and a labels table to the report; its variants; the demo."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.core.files import ensure_folder, path_safe, write_text
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.extraction.encoder_grid import encoder_grid
from wsi_ncmi.synthesis import SynthesisConfig, make_cohort
from wsi_ncmi.workflows.checks import check_job
from wsi_ncmi.workflows.config import JobConfig, load_config, recorded, recorded_yaml
from wsi_ncmi.workflows.extraction import extract
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.training import train


def run_job(
    config: JobConfig, progress: ProgressReporter | None = None, *, only: Collection[str] = ()
) -> JobResult:
    """Runs a whole job, or all its variants; whatever is done already is not done again.

    Args:
        config: The job.
        progress: Told about slides and epochs.
        only: Variants to run; empty = all.

    Returns:
        Files of extraction and training together, and all failures.

    Raises:
        InputError: The configuration or an input is wrong; nothing was started.
    """
    progress = progress or NullProgress()
    if config.variants or only:
        return run_variants(config, only, lambda variant, folder: _run(variant, folder, progress))
    return _run(config, config.out / "run", progress)


def _run(config: JobConfig, run_folder: Path, progress: ProgressReporter) -> JobResult:
    # A fault in labels or splits must not wait until hours of extraction are over.
    check_job(config)
    config = replace(config, grid=encoder_grid(config.grid, config.encoder.name))  # numbers for the record
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
        replace(config, features=features, out=run_folder), progress, ledger=ledger, job=recorded(config)
    )
    # The configuration in force, every default written out, absolute paths cut to their last part.
    files["config"] = run_folder.parent / f"{'config' if run_folder.name == 'run' else run_folder.name}.yaml"
    write_text(files["config"], recorded_yaml(config))
    return JobResult(
        files={**files, **trained.files},
        failures=(*failures, *trained.failures),
        notes=(*notes, *trained.notes),
    )


def run_variants(
    config: JobConfig, only: Collection[str], run: Callable[[JobConfig, Path], JobResult]
) -> JobResult:
    """Runs the variants of a configuration one after the other.

    A variant that can't be run (its weights are missing, its split leaks) costs only itself.

    Args:
        config: With ``variants``.
        only: Names to run; empty = all.
        run: Runs one configuration into a run folder.

    Returns:
        Files as ``<variant>.<name>``; failures and notes with the variant's name in front.

    Raises:
        InputError: There is no such variant (nothing was started), or none could be run.
    """
    unknown = [name for name in only if name not in config.variants]
    if unknown:
        known = ", ".join(config.variants) or "none"
        raise InputError(f"The configuration has no variant {unknown[0]!r}; it has: {known}.")
    chosen = {name: config.variant(name) for name in config.variants if not only or name in only}
    files: dict[str, Path] = {}
    failures: list[str] = []
    notes: list[str] = []
    errors: list[InputError] = []
    for name, variant in chosen.items():
        try:
            result = run(variant, config.out / "run" / path_safe(name))
        except WsiNcmiError as error:
            failures.append(f"{name}: {error}")
            errors += [error] if isinstance(error, InputError) else []
            continue
        files |= {f"{name}.{key}": path for key, path in result.files.items()}
        failures += [f"{name}: {failure}" for failure in result.failures]
        notes += [f"{name}: {note}" for note in result.notes]
    if len(errors) == len(chosen):
        raise errors[0]
    return JobResult(files, tuple(failures), tuple(notes))


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
    places = (f"slides={out / 'slides'}", f"labels={out / 'labels.csv'}", f"out={out}")
    config = load_config("demo", (*places, *overrides))
    ensure_folder(out)
    make_cohort(out, synthesis or SynthesisConfig(), workers=affordable_workers(), progress=progress)
    return run_job(config, progress)
