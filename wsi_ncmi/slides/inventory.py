"""The inventory of a folder of slides: readers, sizes, resolutions, duplicates and problems."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.slides.discovery import find_slides
from wsi_ncmi.slides.found import FoundSlide, name_slides
from wsi_ncmi.slides.identity import files_sha256, fingerprint, slide_key, stamp_of
from wsi_ncmi.slides.inspection import inspect_slides
from wsi_ncmi.slides.mpp import COARSEST_MPP, FINEST_MPP, is_believable_mpp, read_mpp_table
from wsi_ncmi.slides.record import SlideRecord, read_slides_csv

_LOG = logging.getLogger(__name__)

# Reading waits for the disk or network, not for the processor: more threads than cores pay.
_THREADS = 8


def earlier_records(table: Path, root: Path) -> dict[str, SlideRecord]:
    """Path below a folder → what an earlier job found there; ids that it gave stay when slides arrive.

    Args:
        table: ``slides.csv`` of that job; none there, nothing known.
        root: The slide folder. The table is of this folder if one of its slides is there unchanged.
    """
    try:
        records = read_slides_csv(table) if table.is_file() else ()
    except InputError as error:
        _LOG.warning("%s Ids are given anew.", error)
        return {}
    base = root if root.is_dir() else root.parent

    def is_there(record: SlideRecord) -> bool:
        try:
            files = record.files(base)
            if isinstance(files, tuple):
                return fingerprint(files[0], files[1:]) == record.fingerprint
            (found,) = find_slides(files)
            return not found.problem and fingerprint(found.path, found.companions) == record.fingerprint
        except (OSError, WsiNcmiError):
            return False

    known = any(is_there(record) for record in records if record.fingerprint and not record.problem)
    return {record.path: record for record in records} if known else {}


def take_inventory(
    root: Path,
    *,
    mpp_table: Path | None = None,
    default_mpp: float | None = None,
    given: Mapping[str, str] | None = None,
    progress: ProgressReporter | None = None,
    listed: Collection[str] = (),
    opened: Collection[str] | None = None,
    earlier: Mapping[str, SlideRecord] | None = None,
    dicom_id: str = "container",
    patient_key: bytes | None = None,
) -> tuple[SlideRecord, ...]:
    """Lists the slides of a folder from their headers; no pixel is decoded.

    Files are opened in a process of its own, which a bad one may crash, hang or fill.

    Args:
        root: A folder (searched through all its levels), or one slide file.
        mpp_table: CSV ``slide_id,mpp`` whose values override the slides' own.
        default_mpp: µm per pixel for slides without any of their own.
        given: Path → id of earlier jobs, which stay (:func:`earlier_records`).
        progress: Where to report; silent by default.
        listed: Ids that the user asks for (:func:`~wsi_ncmi.slides.discovery.find_slides`).
        opened: Ids of the only slides that are opened; None = all.
        earlier: Path → record of an earlier job. It stands for a slide that isn't to be opened (one without
            is left out), and for one that nobody has written to since.
        dicom_id: What DICOM slides are called by (:func:`~wsi_ncmi.slides.discovery.name_slides`).
        patient_key: Key of the pseudonyms of DICOM patients; without one nothing of the patient is read.

    Returns:
        One record a slide in the order of the paths. Unusable slides carry a ``problem``, copies a
        ``duplicate_of``; none is left out.

    Raises:
        InputError: The root, the table or the default is wrong.
    """
    if default_mpp is not None and not is_believable_mpp(default_mpp):
        raise InputError(
            f"The default of {default_mpp:g} µm per pixel is no slide's; "
            f"give a value above {FINEST_MPP} and at most {COARSEST_MPP:g}."
        )
    table = read_mpp_table(mpp_table) if mpp_table is not None else {}
    found = find_slides(root, listed=listed, patient_key=patient_key)
    ids = name_slides(found, given, dicom_id)
    own_mpp = _match_table(table, found, ids, mpp_table.name if mpp_table is not None else "")
    asked = [(slide, slide_id, own_mpp.get(slide_id)) for slide, slide_id in zip(found, ids, strict=True)]
    known = earlier or {}
    unchanged = {
        slide_id: replace(known[slide.relative], slide_id=slide_id)
        for slide, slide_id, mpp in asked
        if slide.relative in known and _is_unchanged(known[slide.relative], slide, mpp, default_mpp)
    }
    kept = dict(unchanged)
    if opened is not None:
        kept |= {i: known[s.relative] for s, i, _ in asked if i not in opened and s.relative in known}
    asked = [each for each in asked if each[1] not in kept and (opened is None or each[1] in opened)]
    with (progress or NullProgress()).task("inventory", len(asked), "slides") as task:
        records = {record.slide_id: record for record in inspect_slides(asked, default_mpp, task)} | kept
    listing = [
        (slide, records[slide_id]) for slide, slide_id in zip(found, ids, strict=True) if slide_id in records
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        return _mark_duplicates(
            [record for _, record in listing], [slide for slide, _ in listing], unchanged, pool
        )


def _is_unchanged(record: SlideRecord, slide: FoundSlide, mpp: float | None, default: float | None) -> bool:
    """Whether a slide, opened anew, would get the record that it has."""
    if not record.stamp or record.problem or slide.problem or slide.dicom or mpp is not None:
        return False
    if record.mpp_source == "table" or (record.mpp_source == "default" and record.mpp_x != default):
        return False
    try:
        return stamp_of((slide.path, *slide.companions)) == record.stamp
    except OSError:
        return False


def _match_table(
    table: Mapping[str, float], found: Sequence[FoundSlide], ids: Sequence[str], table_name: str
) -> dict[str, float]:
    """The table's values by the ids of this job; a name that two slides share is refused, not guessed."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for slide, slide_id in zip(found, ids, strict=True):
        for name in {slide_key(slide.relative.rsplit("/", 1)[-1]), slide_key(slide_id)}:
            by_name[name].append(slide_id)
    known = set(ids)
    values: dict[str, float] = {}
    unknown = []
    for name, value in table.items():
        matches = [name] if name in known else by_name.get(name, [])
        if len(matches) > 1:
            raise InputError(
                f"The mpp table {table_name} names {name}, but {len(matches)} slides carry that name; "
                f"use their ids ({', '.join(matches[:3])})."
            )
        if matches:
            values[matches[0]] = value
        else:
            unknown.append(name)
    if unknown:
        _LOG.warning(
            "The mpp table %s names %d slides that are not here: %s", table_name, len(unknown), unknown[:5]
        )
    return values


def _mark_duplicates(
    records: Sequence[SlideRecord],
    found: Sequence[FoundSlide],
    unchanged: Collection[str],
    pool: ThreadPoolExecutor,
) -> tuple[SlideRecord, ...]:
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        if record.fingerprint:
            groups[record.size_bytes, record.fingerprint].append(index)
    compared = {
        index
        for group in groups.values()
        if len(group) > 1 and _were_compared([records[index] for index in group], unchanged)
        for index in group
    }
    suspects = [i for group in groups.values() if len(group) > 1 for i in group if i not in compared]
    contents = dict(zip(suspects, _content_keys([found[index] for index in suspects], pool), strict=True))
    first: dict[str, str] = {}
    # Of slides that weren't opened it may be of earlier jobs, and the other be replaced since.
    marked = [
        record if not record.duplicate_of or index in compared else replace(record, duplicate_of="")
        for index, record in enumerate(records)
    ]
    for index in suspects:
        original = first.setdefault(contents[index], records[index].slide_id)
        if original != records[index].slide_id:
            marked[index] = replace(records[index], duplicate_of=original)
    return tuple(marked)


def _were_compared(group: Sequence[SlideRecord], unchanged: Collection[str]) -> bool:
    """Whether an earlier job has compared just these slides, and nobody has written to one since."""
    ids = {record.slide_id for record in group}
    return (
        ids.issubset(unchanged)
        and not group[0].duplicate_of
        and all(not record.duplicate_of or record.duplicate_of in ids for record in group)
    )


def _content_keys(slides: Sequence[FoundSlide], pool: ThreadPoolExecutor) -> Iterable[str]:
    """Full hashes; links to one file (symbolic or hard) are read once."""
    inodes = [(status.st_dev, status.st_ino) for status in (slide.path.stat() for slide in slides)]
    unique = dict(zip(inodes, slides, strict=True))
    hashes = pool.map(lambda slide: files_sha256(slide.path, slide.companions), unique.values())
    by_inode = dict(zip(unique, hashes, strict=True))
    return [by_inode[inode] for inode in inodes]
