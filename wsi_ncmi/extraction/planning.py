"""Tasks of an extraction, made of its configuration: slides, tile grids and annotations."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.core.tables import read_table
from wsi_ncmi.core.values import SUSPECT, suspects_between
from wsi_ncmi.encoders.weights_folder import find_weights_folder
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.encoder_grid import encoder_grid
from wsi_ncmi.extraction.task import AnnotationFile, SlideTask
from wsi_ncmi.features.paths import set_name
from wsi_ncmi.features.stain import StainTarget
from wsi_ncmi.slides import SlideRecord, earlier_records, read_slides_csv, slide_key, take_inventory
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.found import name_slides
from wsi_ncmi.slides.mpp import read_mpp_table
from wsi_ncmi.tiling import GridConfig

_LOG = logging.getLogger(__name__)
_SHOWN = 5


def list_slides(
    config: ExtractConfig,
    progress: ProgressReporter,
    given: Mapping[str, str] | None = None,
    opened: Collection[str] | None = None,
) -> tuple[SlideRecord, ...]:
    """All slides of a job: those of its inventory, or else those that are found below its folder.

    Args:
        config: The job.
        progress: Told about every slide that is opened.
        given: Path → id that a slide has already, beside those that the job's folder tells.
        opened: Only these slides are opened, and others stand as the job's folder tells; None = all.

    Raises:
        InputError: There are no slides, or the inventory can't be read.
    """
    slides = slides_of(config)
    if config.inventory is None:
        earlier = earlier_records(config.out / "slides.csv", slides)
        return take_inventory(
            slides,
            mpp_table=config.mpp_table,
            default_mpp=config.default_mpp,
            given={path: record.slide_id for path, record in earlier.items()} | dict(given or {}),
            listed=_listed(config.only) if config.only is not None else (),
            progress=progress,
            opened=opened,
            earlier=earlier,
            dicom_id=config.dicom_id,
            patient_key=config.patient_key,
        )
    return read_slides_csv(config.inventory)


def check_inputs(config: ExtractConfig) -> None:
    """Finds what is missing or wrong in the files that a job names beside its slides; opens no slide.

    Raises:
        InputError: A file or folder isn't there, or a table can't be read.
    """
    slides = slides_of(config)
    if not slides.exists():
        raise InputError(f"There is no file or folder {slides}; give the folder that holds the slides.")
    if config.annotations is not None and not config.annotations.is_dir():
        raise InputError(f"The annotation folder {config.annotations} isn't there; check --annotations.")
    if config.inventory is not None and not config.inventory.is_file():
        raise InputError(f"There is no inventory {config.inventory}; check --inventory.")
    if config.mpp_table is not None:
        read_mpp_table(config.mpp_table)
    _ = config.patient_key
    if config.only is not None:
        _listed(config.only)


def with_mask_model(config: ExtractConfig) -> ExtractConfig:
    """The job with its mask model found, run once and hashed, where its tissue comes from one.

    Raises:
        InputError: It can't be used.
    """
    if config.tissue.model_file is None:
        return config
    from wsi_ncmi.tissue.learned import check_mask_model

    folder = find_weights_folder(config.weights_dir)
    return replace(config, tissue=check_mask_model(config.tissue, folder))


def slides_of(config: ExtractConfig) -> Path:
    """The folder of slides.

    Raises:
        InputError: The configuration names none.
    """
    if config.slides is None:
        raise InputError(
            "The configuration names no slides; add 'slides: FOLDER', for example with --set slides=FOLDER."
        )
    return config.slides


def slide_ids_of(config: ExtractConfig) -> tuple[str, ...]:
    """Ids of a job's slides, from the names of files alone: none is opened.

    Raises:
        InputError: There is no such folder, inventory or list.
    """
    requested = None if config.only is None else _listed(config.only)
    if config.inventory is not None:
        ids: Sequence[str] = [record.slide_id for record in read_slides_csv(config.inventory)]
    else:
        slides = slides_of(config)
        given = {path: r.slide_id for path, r in earlier_records(config.out / "slides.csv", slides).items()}
        # What is left out is told when the slides are opened.
        found = find_slides(slides, listed=requested or (), remark=lambda _: None)
        ids = name_slides(found, given, config.dicom_id)
    return tuple(slide_id for slide_id in ids if requested is None or slide_key(slide_id) in requested)


def choose_slides(
    records: Sequence[SlideRecord], config: ExtractConfig, slide_ids: Collection[str] | None = None
) -> list[SlideRecord]:
    """The slides that a job works on: those of its list, and of them its part of a job array.

    Args:
        records: All slides of the inventory.
        config: The job.
        slide_ids: Only these; None = all.

    Raises:
        InputError: The list names slides that are not there, a slide isn't what the inventory says, or there
            is no slide at all.
    """
    slides = slides_of(config)
    chosen = list(records)
    if config.only is not None:
        requested = _listed(config.only)
        chosen = [record for record in chosen if slide_key(record.slide_id) in requested]
        there = {slide_key(record.slide_id) for record in records}
        unknown = sorted(requested - there)
        if unknown:
            alike = suspects_between(unknown[:1], there)
            hint = "".join(f", but {name!r} is there, and these {SUSPECT}" for name in alike.values())
            raise InputError(
                f"{config.only} lists {counted(len(unknown), 'slide')} not below {slides} (the first: "
                f"{unknown[0]!r}{hint}); correct the list."
            )
    if slide_ids is not None:
        chosen = [record for record in chosen if record.slide_id in slide_ids]
    if config.shard is not None:
        number, count = config.shard
        chosen = chosen[number - 1 :: count]
    if not chosen and config.shard is None and slide_ids is None:
        raise InputError(f"There is no slide below {slides}; give the folder that holds them.")
    if config.inventory is not None:
        _check_unchanged(chosen, slides, config.inventory)
    return chosen


def grids_of(config: ExtractConfig) -> dict[str, GridConfig]:
    """The grids of a job, in numbers, by the name of their set of features; the main set's name is empty.

    Raises:
        InputError: The same resolution is asked for twice.
    """
    main = encoder_grid(config.grid, config.encoder.name)
    grids = {"": main}
    for mpp in config.further_mpp:
        name = set_name(mpp)
        if name in grids or name == set_name(main.target_mpp):
            raise InputError(
                f"The resolution of {mpp:g} µm per pixel is asked for twice; name each --mpp once."
            )
        grids[name] = replace(main, mpp=mpp)
    return grids


def make_tasks(
    config: ExtractConfig,
    records: Sequence[SlideRecord],
    stain: StainTarget | None,
    slide_ids: Collection[str] | None = None,
) -> list[SlideTask]:
    """The tasks of a job; those of one slide follow each other, so that it is analysed once.

    Args:
        config: The job.
        records: All slides of the inventory.
        stain: Target of the stain normalisation.
        slide_ids: Only these slides; None = all.

    Raises:
        InputError: The configuration is wrong, or there is nothing to do.
    """
    chosen = choose_slides(records, config, slide_ids)
    configs = {name: replace(config, grid=grid) for name, grid in grids_of(config).items()}
    drawn_on = _annotation_files(config.annotations, records)
    tasks = []
    for known in chosen:
        record, drawn = _annotated(known, drawn_on)
        tasks += [SlideTask(record, each, drawn, stain, name, len(configs)) for name, each in configs.items()]
    return tasks


def _annotation_files(folder: Path | None, records: Sequence[SlideRecord]) -> dict[str, list[Path]] | None:
    """The annotation files of each slide; None where the job has no folder of them.

    Files that belong to no slide are told; a folder in which nothing does is refused: it is the wrong one.

    Raises:
        InputError: There is no such folder, or no file in it is named after a slide.
    """
    if folder is None:
        return None
    from wsi_ncmi.tissue import match_annotations

    names = {record.slide_id: record.path.rsplit("/", 1)[-1] for record in records}
    found, left = match_annotations(folder, names)
    alike = suspects_between((path.name.partition(".")[0] for path in left), names)
    hint = "".join(f"; {a!r} and the slide {b!r} {SUSPECT}" for a, b in list(alike.items())[:1])
    if not found:
        raise InputError(
            f"No file in {folder} is named after one of the {len(records)} slides, such as "
            f"{records[0].slide_id if records else 'SLIDE'}.geojson{hint}; check --annotations."
        )
    if left:
        shown = ", ".join(path.name for path in left[:_SHOWN]) + (", …" if len(left) > _SHOWN else "")
        _LOG.warning(
            "%s in %s not used, named after no slide: %s%s.", counted(len(left), "file"), folder, shown, hint
        )
    return found


def _annotated(
    record: SlideRecord, found: Mapping[str, Sequence[Path]] | None
) -> tuple[SlideRecord, AnnotationFile | None]:
    """A slide with what a person drew on it.

    Args:
        record: The slide.
        found: From ``_annotation_files``.

    Returns:
        The record, with a ``problem`` where its annotations can't be read, and its annotations (None without
        a folder).
    """
    if found is None:
        return record, None
    from wsi_ncmi.tissue import only_annotation, read_annotations

    try:
        path = only_annotation(record.slide_id, found.get(record.slide_id, ()))
        if path is None:
            return record, AnnotationFile()
        return record, AnnotationFile(path, read_annotations(path, record.scanned).sha256)
    except InputError as error:
        return replace(record, problem=record.problem or str(error)), AnnotationFile()


def _check_unchanged(records: Sequence[SlideRecord], root: Path, inventory: Path) -> None:
    """Makes sure that slides still are what an inventory says, as far as their sizes tell.

    Args:
        records: The slides that are to be worked on.
        root: The folder that their paths are relative to, or the one slide.
        inventory: The table, for the message.

    Raises:
        InputError: A slide is gone or has another size; the first one is named.
    """
    changed = []
    for record in records:
        if record.problem:
            continue
        path = root if root.is_file() else root / record.path
        files = record.files(root)
        try:
            size = sum(file.stat().st_size for file in (files if isinstance(files, tuple) else (files,)))
        except OSError:
            changed.append((record, "is not there any more"))
            continue
        # The recorded size is that of all files of a slide; most have one.
        one = isinstance(files, tuple) or not _has_several(path)
        if size > record.size_bytes or (size < record.size_bytes and one):
            changed.append((record, f"has {size} bytes instead of {record.size_bytes}"))
    if changed:
        record, what = changed[0]
        raise InputError(
            f"{record.path} {what} since {inventory.name} was written ({counted(len(changed), 'slide')} like "
            "it); write it again with wsi-ncmi inventory."
        )


def _listed(path: Path) -> set[str]:
    table = read_table(path)
    table.require(("slide_id",))
    return {slide_key(row["slide_id"]) for row in table.rows if row["slide_id"]}


def _has_several(path: Path) -> bool:
    return path.suffix.lower() in (".mrxs", ".vms", ".vmu", ".dcm", "") or path.is_dir()
