"""Finds the slides of a folder: nested folders, links without loops, several files of one slide as one.

A whole-slide series is one slide in several files (a level or a part of one each). Source: DICOM PS3.5,
sections 7.1 (data elements) and 7.5 (nested sequences). Only the element (0020,000E) is looked for; patient
elements are skipped by their length and label images are never decoded.
"""

import os
import re
import struct
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_ncmi.core.errors import InputError, plain_reason
from wsi_ncmi.slides.identity import FLAT_EXTENSIONS, has_slide_extension, slide_id_of

_HEADER_BYTES = 1 << 20
_SERIES = (0x0020, 0x000E)
_TRANSFER_SYNTAX = (0x0002, 0x0010)
_IMPLICIT = "1.2.840.10008.1.2"
_LONG_VALUES = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF
_ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_MAX_DEPTH = 16


def series_uid(path: Path) -> str:
    """The SeriesInstanceUID of a little-endian DICOM file.

    Args:
        path: Any file.

    Returns:
        The UID, or an empty string when the file is no DICOM file or names no series in its first MiB.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as handle:
        data = handle.read(_HEADER_BYTES)
    if data[128:132] != b"DICM":
        return ""
    try:
        return _find_series(data)
    except (struct.error, _MalformedError):
        return ""


class _MalformedError(Exception):
    """The header does not follow the standard."""


def _find_series(data: bytes) -> str:
    position, implicit = 132, False
    while position + 8 <= len(data):
        # The file meta group is always explicit; the transfer syntax in it rules what follows.
        group = struct.unpack_from("<H", data, position)[0]
        tag, start, length = _element(data, position, implicit=implicit and group != 2)
        if tag > _SERIES:
            return ""
        value = b"" if length == _UNDEFINED else data[start : start + length]
        if tag == _SERIES:
            return _text(value)
        if tag == _TRANSFER_SYNTAX:
            implicit = _text(value) == _IMPLICIT
        position = start + length if length != _UNDEFINED else _skip_sequence(data, start, implicit, 0)
    return ""


def _element(data: bytes, position: int, *, implicit: bool) -> tuple[tuple[int, int], int, int]:
    tag = struct.unpack_from("<HH", data, position)
    if implicit or tag[0] == 0xFFFE:
        return tag, position + 8, struct.unpack_from("<I", data, position + 4)[0]
    kind = data[position + 4 : position + 6]
    if kind in _LONG_VALUES:
        return tag, position + 12, struct.unpack_from("<I", data, position + 8)[0]
    return tag, position + 8, struct.unpack_from("<H", data, position + 6)[0]


def _skip_sequence(data: bytes, position: int, implicit: bool, depth: int) -> int:
    """The position behind a sequence or an item of undefined length."""
    if depth > _MAX_DEPTH:
        raise _MalformedError
    while position + 8 <= len(data):
        tag, start, length = _element(data, position, implicit=implicit)
        if tag in (_SEQUENCE_END, _ITEM_END):
            return start
        position = start + length
        if length == _UNDEFINED:
            position = _skip_sequence(data, start, implicit, depth + 1)
    raise _MalformedError


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")


_COMPANION_IMAGE = re.compile(rb"=\s*([^\r\n=]+\.(?:jpg|jpeg|opt))\s*$", re.IGNORECASE | re.MULTILINE)
_PICTURE_OF_SLIDE = re.compile(r"[-_. ]?(?:label|macro|thumb|thumbnail|overview|preview)$", re.IGNORECASE)
_INDEX_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class FoundSlide:
    """One slide on disk, not yet opened.

    Attributes:
        path: Its main file.
        relative: The path below the root with ``/``; never absolute.
        companions: Further files of the same slide.
        problem: Empty, or the reason why it can't be listed.
    """

    path: Path
    relative: str
    companions: tuple[Path, ...] = ()
    problem: str = ""


def find_slides(root: Path) -> tuple[FoundSlide, ...]:
    """Lists the slides of a folder in the order of their paths.

    Multi-file slides count once: MRXS with its data folder, VMS/VMU with their JPEG files, a DICOM series
    (represented by its largest file). Hidden files, and flat pictures of a slide beside it (``x.jpg`` or
    ``x_label.png`` beside ``x.svs``: patient data as a rule), are not slides. Folders that can't be listed,
    links that lead nowhere and MIRAX data without its ``.mrxs`` are listed with a problem, so that nothing
    is lost unseen.

    Args:
        root: A folder, or a single slide file.

    Returns:
        The slides, sorted by their relative path.

    Raises:
        InputError: ``root`` does not exist or can't be listed.
    """
    if not root.exists():
        raise InputError(f"There is no file or folder {root}; give the folder that holds the slides.")
    if not root.is_dir():
        return (_single(root),)
    found: list[FoundSlide] = []
    seen: set[tuple[int, int]] = set()
    # Linked folders wait until all real ones are walked, so that a folder is listed under its real name.
    queue: list[tuple[Path, str]] = [(root, "")]
    linked: list[tuple[Path, str]] = []
    while queue or linked:
        folder, prefix = queue.pop() if queue else linked.pop(0)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if not prefix:
                raise InputError(f"The folder {root} can't be listed ({error.strerror}).") from error
            problem = f"The folder {folder.name} can't be listed ({plain_reason(error, folder)}); "
            found.append(FoundSlide(folder, prefix.rstrip("/"), problem=problem + "check its permissions."))
            continue
        folders, files = _split(entries)
        slides, used = _slides_of(folder, files, set(folders))
        found += [replace(slide, relative=prefix + slide.relative) for slide in slides]
        for name, is_link in folders.items():
            if name not in used:
                (linked if is_link else queue).append((folder / name, f"{prefix}{name}/"))
        linked.sort(key=lambda pair: pair[1])
    return tuple(sorted(found, key=lambda slide: slide.relative))


def _single(path: Path) -> FoundSlide:
    """One named file, as the same slide that its folder's listing would give."""
    if path.name.lower().endswith(".dcm"):
        siblings = sorted(file.name for file in path.parent.iterdir() if file.is_file())
        for slide in _slides_of(path.parent, siblings, set())[0]:
            if path in (slide.path, *slide.companions):
                return slide
    return _found(path, _companions_of(path))


def _split(entries: list[os.DirEntry[str]]) -> tuple[dict[str, bool], list[str]]:
    """Folder names (True for links) and file names, hidden ones left out."""
    folders: dict[str, bool] = {}
    files = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself; it is listed as a file with that problem
            is_folder = False
        if is_folder:
            folders[entry.name] = entry.is_symlink()
        else:
            files.append(entry.name)
    return folders, files


def _slides_of(folder: Path, files: list[str], folders: set[str]) -> tuple[list[FoundSlide], set[str]]:
    """The slides among one folder's files, and the subfolders that belong to them."""
    used: set[str] = set()
    hidden: set[str] = set()
    slides: list[FoundSlide] = []
    series: dict[str, list[str]] = defaultdict(list)
    if "Slidedat.ini" in files:  # else its parent's .mrxs would have claimed this folder
        problem = (
            f"{folder.name} holds MIRAX data without its file {folder.name}.mrxs; put that beside the folder."
        )
        slides.append(FoundSlide(folder / "Slidedat.ini", "Slidedat.ini", problem=problem))
    names = [name for name in files if has_slide_extension(name)]
    stems = {slide_id_of(name) for name in names if not name.lower().endswith(FLAT_EXTENSIONS)}
    for name in names:
        if name.lower().endswith((".vms", ".vmu")):
            hidden |= _named_in_index(folder / name)
    for name in names:
        path, lower = folder / name, name.lower()
        if name in hidden or (lower.endswith(FLAT_EXTENSIONS) and _is_picture_of(slide_id_of(name), stems)):
            continue
        if lower.endswith(".mrxs"):
            used |= {slide_id_of(name)} & folders
        uid = _series_or_empty(path) if lower.endswith(".dcm") else ""
        if uid:
            series[uid].append(name)
        else:
            slides.append(_found(path, _companions_of(path)))
    for members in series.values():
        # The largest file holds the finest level; the first of equals keeps the choice stable.
        main = max(sorted(members), key=lambda name: (folder / name).stat().st_size)
        slides.append(_found(folder / main, tuple(folder / name for name in sorted(members) if name != main)))
    return slides, used


def _found(path: Path, companions: tuple[Path, ...]) -> FoundSlide:
    try:
        path.name.encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(path.name).decode("utf-8", "backslashreplace")
        problem = f"The file name {shown} is not valid UTF-8; rename the file."
        return FoundSlide(path, shown, companions, problem)
    problem = "" if path.exists() else f"{path.name} is a link that leads nowhere; repair or remove it."
    return FoundSlide(path, path.name, companions, problem)


def _companions_of(path: Path) -> tuple[Path, ...]:
    lower = path.name.lower()
    if lower.endswith(".mrxs"):
        folder = path.with_name(slide_id_of(path.name))
        return tuple(sorted(file for file in folder.glob("*") if file.is_file())) if folder.is_dir() else ()
    if lower.endswith((".vms", ".vmu")):
        named = (path.with_name(name) for name in sorted(_named_in_index(path)))
        return tuple(file for file in named if file.is_file())
    return ()


def _named_in_index(path: Path) -> set[str]:
    try:
        with path.open("rb") as handle:
            text = handle.read(_INDEX_FILE_BYTES)
    except OSError:  # the slide itself will be listed with this problem
        return set()
    return {match.decode("utf-8", "replace").strip() for match in _COMPANION_IMAGE.findall(text)}


def _series_or_empty(path: Path) -> str:
    try:
        return series_uid(path)
    except OSError:  # listed on its own, with the problem when it is opened
        return ""


def _is_picture_of(stem: str, slide_stems: set[str]) -> bool:
    return stem in slide_stems or _PICTURE_OF_SLIDE.sub("", stem) in slide_stems
