"""The inventory of a folder of slides: readers, sizes, resolutions, duplicates and problems."""

import csv
import dataclasses
import io
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError, SlideError, WsiNcmiError, plain_reason
from wsi_ncmi.core.files import write_text
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.slides.discovery import FoundSlide, find_slides
from wsi_ncmi.slides.identity import assign_slide_ids, files_sha256, fingerprint, slide_key
from wsi_ncmi.slides.mpp import COARSEST_MPP, FINEST_MPP, is_believable_mpp, read_mpp_table, resolve_mpp
from wsi_ncmi.slides.opening import open_slide

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SlideRecord:
    """One slide of an inventory.

    Attributes:
        slide_id: The slide's id in this job, unique.
        path: Path below the inventory's root, with ``/``.
        reader: Name of the reader that opens it; empty when none does.
        vendor: The format as the reader names it, for example ``aperio``.
        width_px: Width of level 0 in pixels; 0 when unknown.
        height_px: Height of level 0 in pixels; 0 when unknown.
        n_levels: Number of pyramid levels.
        mpp_x: Microns per level-0 pixel along x, or None.
        mpp_y: The same along y.
        mpp_source: The link of the resolution chain that gave it; empty when none did.
        fingerprint: Content fingerprint in hex; empty when the file can't be read.
        size_bytes: Size of all its files.
        problem: Empty when the slide is usable, else one sentence.
        duplicate_of: The id of the first slide with the same content, or empty.
    """

    slide_id: str
    path: str
    reader: str
    vendor: str
    width_px: int
    height_px: int
    n_levels: int
    mpp_x: float | None
    mpp_y: float | None
    mpp_source: str
    fingerprint: str
    size_bytes: int
    problem: str = ""
    duplicate_of: str = ""


_COLUMNS = tuple(field.name for field in dataclasses.fields(SlideRecord))
_INTEGERS = ("width_px", "height_px", "n_levels", "size_bytes")
_NUMBERS = ("mpp_x", "mpp_y")


def write_slides_csv(records: Iterable[SlideRecord], path: Path) -> None:
    """Writes an inventory atomically: UTF-8, one row a slide, the record's fields as columns.

    Numbers keep full precision; unknown ones are empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for record in records:
        writer.writerow("" if value is None else value for value in dataclasses.astuple(record))
    write_text(path, text.getvalue())


def read_slides_csv(path: Path) -> tuple[SlideRecord, ...]:
    """Reads what :func:`write_slides_csv` wrote.

    Raises:
        InputError: The file can't be read, lacks a column or holds a wrong value; the message names it.
    """
    records = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = csv.DictReader(handle)
            missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path.name} is no slide inventory: it lacks the column {missing[0]}; "
                    "write one with wsi-ncmi inventory."
                )
            for row in rows:
                where = f"{path.name}, line {rows.line_num}"
                records.append(SlideRecord(**{name: _parse(name, row[name], where) for name in _COLUMNS}))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"The slide inventory {path.name} can't be read ({reason}); "
            "write a new one with wsi-ncmi inventory."
        ) from error
    return tuple(records)


def given_ids(table: Path, root: Path) -> dict[str, str]:
    """Path below a folder → id that an earlier job gave the slide, so that ids stay when slides arrive.

    Args:
        table: ``slides.csv`` of that job; none there, none given.
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
            (found,) = find_slides(base / record.path)
            return fingerprint(found.path, found.companions) == record.fingerprint
        except (OSError, WsiNcmiError):
            return False

    known = any(is_there(record) for record in records if record.fingerprint and not record.problem)
    return {record.path: record.slide_id for record in records} if known else {}


def _parse(name: str, text: str | None, where: str) -> Any:
    if text is None:
        raise InputError(f"{where}: the row ends before {name}; write the inventory again.")
    if name in _NUMBERS and not text:
        return None
    kind: Callable[[str], Any] = int if name in _INTEGERS else float if name in _NUMBERS else str
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{where}: {name} is {text!r}, not a number; write the inventory again.") from None


# Opening waits for the disk or network, not for the processor: more threads than cores pay.
_THREADS = 8


def take_inventory(
    root: Path,
    *,
    mpp_table: Path | None = None,
    default_mpp: float | None = None,
    given: Mapping[str, str] | None = None,
    progress: ProgressReporter | None = None,
) -> tuple[SlideRecord, ...]:
    """Lists the slides of a folder from their headers; no pixel is decoded.

    Args:
        root: A folder (searched through all its levels), or one slide file.
        mpp_table: CSV ``slide_id,mpp`` whose values override the slides' own.
        default_mpp: µm per pixel for slides without any of their own.
        given: Path → id of earlier jobs, which stay (:func:`given_ids`).
        progress: Where to report; silent by default.

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
    found = find_slides(root)
    ids = assign_slide_ids([slide.relative for slide in found], given)
    own_mpp = _match_table(table, found, ids, mpp_table.name if mpp_table is not None else "")
    with (
        (progress or NullProgress()).task("inventory", len(found), "slides") as task,
        ThreadPoolExecutor(_THREADS) as pool,
    ):

        def inspect(pair: tuple[FoundSlide, str]) -> SlideRecord:
            return _inspect(*pair, own_mpp.get(pair[1]), default_mpp)

        records = []
        for record in pool.map(inspect, zip(found, ids, strict=True)):
            records.append(record)
            task.advance(1, record.slide_id)
        return _mark_duplicates(records, found, pool)


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


def _inspect(
    found: FoundSlide, slide_id: str, table_mpp: float | None, default_mpp: float | None
) -> SlideRecord:
    record = SlideRecord(
        slide_id=slide_id, path=found.relative, reader="", vendor="", width_px=0, height_px=0, n_levels=0,
        mpp_x=None, mpp_y=None, mpp_source="", fingerprint="", size_bytes=0, problem=found.problem,
    )  # fmt: skip
    if found.problem:
        return record
    try:
        size = sum(file.stat().st_size for file in (found.path, *found.companions))
        record = replace(record, size_bytes=size)
        record = replace(record, fingerprint=fingerprint(found.path, found.companions))
        with open_slide(found.path, compare_levels=False) as slide:
            record = replace(
                record, reader=slide.reader, vendor=slide.vendor, width_px=slide.width_px,
                height_px=slide.height_px, n_levels=len(slide.levels),
            )  # fmt: skip
            mpp = resolve_mpp(slide, table_mpp=table_mpp, default_mpp=default_mpp)
        return replace(record, mpp_x=mpp.x, mpp_y=mpp.y, mpp_source=mpp.source)
    except SlideError as error:
        return replace(record, problem=str(error))
    except OSError as error:
        reason = plain_reason(error, found.path)
        return replace(record, problem=f"{found.path.name} can't be read ({reason}); check its permissions.")


def _mark_duplicates(
    records: Sequence[SlideRecord], found: Sequence[FoundSlide], pool: ThreadPoolExecutor
) -> tuple[SlideRecord, ...]:
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        if record.fingerprint:
            groups[record.size_bytes, record.fingerprint].append(index)
    suspects = [index for group in groups.values() if len(group) > 1 for index in group]
    contents = dict(zip(suspects, _content_keys([found[index] for index in suspects], pool), strict=True))
    first: dict[str, str] = {}
    marked = list(records)
    for index in suspects:
        original = first.setdefault(contents[index], records[index].slide_id)
        if original != records[index].slide_id:
            marked[index] = replace(records[index], duplicate_of=original)
    return tuple(marked)


def _content_keys(slides: Sequence[FoundSlide], pool: ThreadPoolExecutor) -> Iterable[str]:
    """Full hashes; links to one file (symbolic or hard) are read once."""
    inodes = [(status.st_dev, status.st_ino) for status in (slide.path.stat() for slide in slides)]
    unique = dict(zip(inodes, slides, strict=True))
    hashes = pool.map(lambda slide: files_sha256(slide.path, slide.companions), unique.values())
    by_inode = dict(zip(unique, hashes, strict=True))
    return [by_inode[inode] for inode in inodes]
