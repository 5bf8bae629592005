"""Makes a whole synthetic cohort on disk, in parallel and resumable."""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import ensure_folder, parse_json, write_json, write_text
from wsi_ncmi.core.leftovers import clean_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.synthesis.centres import CENTRES
from wsi_ncmi.synthesis.config import SynthesisConfig
from wsi_ncmi.synthesis.faults import Fault, make_fault, plan_faults
from wsi_ncmi.synthesis.plan import SlidePlan, plan_cohort

#: To be raised with every change that alters a byte of a slide.
GENERATOR_VERSION = 1
STAMP_NAME = "synthesis.json"


@dataclass(frozen=True)
class CohortPaths:
    """Paths of a cohort.

    Attributes:
        slides: Folder of slides.
        labels: CSV ``slide_id,label,case_id,centre``.
        truth: Folder of ``<slide_id>.geojson``, one for each slide that isn't faulty.
    """

    slides: Path
    labels: Path
    truth: Path


def make_cohort(
    out: Path, options: SynthesisConfig, *, workers: int = 1, progress: ProgressReporter | None = None
) -> CohortPaths:
    """Makes the cohort below ``out``, or what is missing of it.

    A stamp (``synthesis.json``) holds the hash of the options and of the generator's version. Slides are
    written atomically, so where the stamp fits, a slide that exists is whole and isn't made again.

    Args:
        out: Folder for ``slides/``, ``truth/``, ``labels.csv`` and the stamp.
        options: What to make.
        workers: Number of processes; the bytes don't depend on it.
        progress: Told of every finished slide.

    Returns:
        The paths.

    Raises:
        InputError: ``out`` can't be written to or holds another cohort.
    """
    if workers < 1:
        raise InputError(f"The number of workers is {workers}; give 1 or more.")
    paths = CohortPaths(out / "slides", out / "labels.csv", out / "truth")
    plans = plan_cohort(options)
    faults = plan_faults(plans) if options.faults else ()
    ensure_folder(out)
    _check_stamp(out, paths, options)
    for folder in (paths.slides, paths.truth):
        clean_folder(ensure_folder(folder))
    write_json(out / STAMP_NAME, _stamp(options))
    write_text(paths.labels, _labels(plans, faults))
    missing = [plan for plan in plans if not _is_there(plan, paths)]
    reporter = progress or NullProgress()
    with reporter.task("Drawing slides", len(plans) + len(faults), "slides") as task:
        if len(missing) < len(plans):
            task.advance(len(plans) - len(missing), "already there")
        for slide_id in _draw(missing, paths, workers):
            task.advance(1, slide_id)
        for fault in faults:
            if not (paths.slides / fault.file).is_file():
                make_fault(fault, paths.slides)
            task.advance(1, fault.slide_id)
    return paths


def _draw(plans: list[SlidePlan], paths: CohortPaths, workers: int) -> Iterator[str]:
    if workers == 1 or len(plans) < 2:
        for plan in plans:
            yield _draw_one(plan, paths)
        return
    # Finely rendered slides take longest: they go first, so that no worker ends alone.
    ordered = sorted(plans, key=lambda plan: (CENTRES[plan.centre].mpp, plan.slide_id))
    with _pool(min(workers, len(plans))) as pool:
        for future in as_completed([pool.submit(_draw_one, plan, paths) for plan in ordered]):
            yield future.result()


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # spawn: the parent may hold threads (progress bar, torch) that a fork would copy in a broken state.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _draw_one(plan: SlidePlan, paths: CohortPaths) -> str:
    # Imported here, so that planning and resuming cost no drawing libraries.
    from wsi_ncmi.synthesis.slide import make_slide

    make_slide(plan, paths.slides, paths.truth)
    return plan.slide_id


def _is_there(plan: SlidePlan, paths: CohortPaths) -> bool:
    return (paths.slides / plan.file_name).is_file() and (paths.truth / f"{plan.slide_id}.geojson").is_file()


def _labels(plans: tuple[SlidePlan, ...], faults: tuple[Fault, ...]) -> str:
    rows = [f"{p.slide_id},{p.label},{p.case_id},{CENTRES[p.centre].name}" for p in plans]
    rows += [f"{f.slide_id},{f.label},{f.case_id},{CENTRES[plans[0].centre].name}" for f in faults]
    return "\n".join(["slide_id,label,case_id,centre", *rows]) + "\n"


def _stamp(options: SynthesisConfig) -> dict[str, object]:
    content = {"generator": GENERATOR_VERSION, "options": asdict(options)}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {"schema": "wsi-ncmi/synthesis/1", **content, "sha256": digest}


def _check_stamp(out: Path, paths: CohortPaths, options: SynthesisConfig) -> None:
    stamp = out / STAMP_NAME
    if not stamp.is_file():
        if paths.slides.is_dir() and any(paths.slides.iterdir()):
            raise InputError(
                f"The folder {paths.slides} already holds files that are not of a synthetic cohort; "
                "choose an empty output folder."
            )
        return
    try:
        found = parse_json(stamp.read_text(encoding="utf-8")).get("sha256")
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{stamp} is not readable as JSON ({error}); remove the folder or choose another."
        ) from error
    if found != _stamp(options)["sha256"]:
        raise InputError(
            f"The folder {out} holds a synthetic cohort of other options (see {STAMP_NAME}); "
            "choose another folder or remove this one."
        )
