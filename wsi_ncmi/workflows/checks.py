"""Checks of a whole job before its first slide is opened: labels, splits and folds against the slides.

The order, for every verb: names, types and cross-field rules when the configuration is read; then what is
here; then paths and permissions, disk space, and the work.
"""

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from wsi_ncmi.cohorts import Cohort, find_leaks, read_labels
from wsi_ncmi.cohorts.labels import adapter_of, parse_spec
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.extras import require
from wsi_ncmi.core.files import check_folder
from wsi_ncmi.core.values import SUSPECT, suspects_between
from wsi_ncmi.extraction.planning import check_inputs, slide_ids_of
from wsi_ncmi.slides import SlideIndex
from wsi_ncmi.training.data import make_folds, refuse_leaks
from wsi_ncmi.workflows.config import JobConfig

_LOG = logging.getLogger(__name__)


def check_job(config: JobConfig) -> None:
    """Finds what would stop a job after its extraction.

    Args:
        config: The job; with ready ``features`` the training itself checks them before it starts.

    Raises:
        InputError: Slides or labels aren't named or aren't there, no label belongs to a slide, the splits
            don't fit the labels or leak, or there are too few patients for the folds.
    """
    require(("train",), "a whole job")
    _check_recorded_paths(config)
    _check_there(config)
    if config.features is not None:
        return
    if config.slides is None:
        raise InputError(
            "The configuration names no slides; add 'slides: FOLDER' (or 'features: FOLDER' for ready "
            "features), for example with --set slides=FOLDER."
        )
    if config.labels is None:
        raise InputError(
            "The configuration names no labels; add 'labels: FILE.csv', for example with "
            "--set labels=FILE.csv."
        )
    check_inputs(config)
    check_folder(config.out)
    labelled = read_labels(config.labels, group="slide_id" if config.split.group == "slide_id" else None)
    cohort = _present(labelled, slide_ids_of(config), config)
    folds = make_folds(config, labelled, cohort, f"below {config.slides}")
    refuse_leaks(find_leaks(*(folds.of_slides or (folds.splits, cohort))), allowed=config.allow_leak)


def _check_recorded_paths(config: JobConfig) -> None:
    """Refuses the paths of a run's own ``config.yaml``, which records no folders."""
    for name in (field.name for field in fields(config)):
        value = getattr(config, name)
        if isinstance(value, str | Path) and "…/" in str(value):
            raise InputError(
                f"{name!r} is {str(value)!r}: the record of a run leaves the folders of paths out; give the "
                f"path with --set {name}=PATH."
            )


def _check_there(config: JobConfig) -> None:
    """Refuses ready features, labels and splits that aren't there, which training would tell after torch."""
    files = {"features": config.features, "splits": config.splits}
    if config.labels is not None:
        spec = parse_spec(config.labels)
        adapter_of(spec)
        files["labels"] = spec.path
    for name, path in files.items():
        if path is not None and not path.exists():
            raise InputError(f"There is no file or folder {path}; check {name!r}.")


def _present(labelled: Cohort, slide_ids: Sequence[str], config: JobConfig) -> Cohort:
    """The labels of slides that are there, matched as the features will be."""
    index = SlideIndex(slide_ids)
    cohort = labelled.restricted_to([name for name in labelled.slide_ids if index.candidates(name)])
    missing = set(labelled.slide_ids) - set(cohort.slide_ids)
    for label, slide in suspects_between(sorted(missing), slide_ids).items():
        _LOG.warning("The label of %r belongs to no slide, but there is %r: these %s.", label, slide, SUSPECT)
    if not slide_ids:
        raise InputError(f"There is no slide below {config.slides}; give the folder that holds them.")
    if not cohort.rows:
        raise InputError(
            f"None of the {len(labelled.rows)} labelled slides is below {config.slides} (labels have ids "
            f"like {labelled.slide_ids[0]!r}, slides like {slide_ids[0]!r}); check the slide ids."
        )
    if len({row.label for row in cohort.rows}) < 2:
        raise InputError(
            f"All {len(cohort.rows)} labelled slides below {config.slides} have the class "
            f"{cohort.rows[0].label!r}; a task needs at least two."
        )
    return cohort
