"""DICOM objects that are one slide: which files may be such, which belong together, how they are opened.

Source: DICOM PS3.3, A.32.8 (an object a level), C.7.6.17 (dimensions) and C.8.12.14 (pyramids).
"""

import contextlib
import fcntl
import mimetypes
import os
import shutil
import tempfile
import weakref
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi.core.errors import SlideOpenError
from wsi_ncmi.slides.dicom_header import read_dicom_header, shows_label, unread_object
from wsi_ncmi.slides.identity import has_slide_extension, unread_format

# Beside those that Python knows: what lies on shares of slides and of machine learning.
_OTHER_KINDS = mimetypes.MimeTypes(()).types_map[True].keys() | {
    ".7z", ".bz2", ".ckpt", ".dat", ".db", ".docx", ".geojson", ".gz", ".ini", ".ipynb", ".jsonl", ".lnk",
    ".log", ".md", ".md5", ".npy", ".npz", ".onnx", ".opt", ".parquet", ".part", ".pptx", ".pt", ".pth",
    ".qpdata", ".qpproj", ".rar", ".rst", ".rtf", ".safetensors", ".sha256", ".sqlite", ".tgz", ".tmp",
    ".toml", ".url", ".xlsx", ".xz", ".yaml", ".yml", ".zst",
}  # fmt: skip
_LINKS = "wsi-ncmi-dicom-"


def may_be_dicom(name: str) -> bool:
    """Whether a file's name leaves it open that it is DICOM: ``.dcm``, or no known extension.

    Archives call their files ``IM000001`` or by UIDs, such as ``1.2.840.113619.2``.
    """
    if name.lower().endswith(".dcm"):
        return True
    return not (has_slide_extension(name) or unread_format(name) or Path(name).suffix.lower() in _OTHER_KINDS)


@dataclass(frozen=True)
class Instance:
    """One whole-slide image object.

    Attributes:
        path: Its file.
        relative: The path below the root with ``/``.
        size: Bytes of the file.
        header: What :func:`~wsi_ncmi.slides.dicom_header.read_dicom_header` gave.
    """

    path: Path
    relative: str
    size: int
    header: dict[str, str]

    @property
    def _pyramid(self) -> tuple[str, ...]:
        uid = self.header.get("PyramidUID", "")
        where = self.header.get("FrameOfReferenceUID", ""), self.header.get("ContainerIdentifier", "")
        return (uid,) if uid else where


def group_by_slide(instances: Sequence[Instance]) -> tuple[list[list[Instance]], list[Instance]]:
    """Puts objects of one series and pyramid together, wherever they lie.

    A second copy of all objects of a series is a slide of its own, which a comparison of content finds.

    Args:
        instances: Objects in the order of their paths.

    Returns:
        Slides, the file of the finest level first; and further copies of single objects, which are of none.
    """
    copies: dict[tuple[str, int], list[Instance]] = defaultdict(list)
    seen: Counter[tuple[str, str]] = Counter()
    for each in instances:
        series = each.header.get("SeriesInstanceUID") or each.relative
        key = series, each.header.get("SOPInstanceUID") or each.relative
        copies[series, seen[key]].append(each)
        seen[key] += 1
    slides: list[list[Instance]] = []
    superfluous: list[Instance] = []
    for (series, number), members in copies.items():
        if number and len(members) < len(copies[series, 0]):
            superfluous += members
        else:
            slides += _pyramids(members)
    return slides, superfluous


def _pyramids(members: list[Instance]) -> list[list[Instance]]:
    tissue = [each for each in members if not shows_label(each.header)]
    finest = [each for each in tissue if "VOLUME" in each.header.get("ImageType", "").upper()] or tissue
    keys = dict.fromkeys(each._pyramid for each in finest)
    if len(keys) > 1:
        return [_finest_first([each for each in tissue if each._pyramid == key]) for key in keys]
    return [_finest_first(members)]


def _finest_first(members: list[Instance]) -> list[Instance]:
    # The largest file holds the finest level; the first of equals keeps the choice stable.
    return sorted(members, key=lambda each: (-each.size, each.relative))


def files_beside(path: Path) -> tuple[Path, ...]:
    """The files in a DICOM file's folder that are one slide with it, itself first.

    Raises:
        OSError: The file or its folder can't be read.
        SlideOpenError: Its header is damaged, or it is no image that can be a slide.
    """
    own = read_dicom_header(path) or {}
    if problem := unread_object(path.name, own):
        raise SlideOpenError(problem)
    instances = []
    for file in sorted(path.parent.iterdir()):
        header = own
        if file != path:
            if not (may_be_dicom(file.name) and file.is_file()):
                continue
            try:
                header = read_dicom_header(file) or {}
            except (OSError, SlideOpenError):  # told where the folder is searched
                continue
            if not header or unread_object(file.name, header):
                continue
        instances.append(Instance(file, file.name, file.stat().st_size, header))
    for members in group_by_slide(instances)[0]:
        files = [each.path for each in members]
        if path in files:
            return (path, *(file for file in files if file != path))
    return (path,)


class LinkFolder:
    """A folder of links to the files of one slide, and to no other: OpenSlide opens every file of a folder.

    It is locked while its process lives, so that the next one takes away what a killed one left.

    Args:
        files: The main file first.

    Attributes:
        main: The link to the main file, which has its name.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        _remove_forgotten()
        folder = Path(tempfile.mkdtemp(prefix=f".{_LINKS}"))
        self._lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = folder.rename(folder.with_name(folder.name[1:]))  # only now others see it, locked
        self._remove = weakref.finalize(self, _unlink, folder, self._lock)
        self.main = folder / files[0].name
        self.main.symlink_to(files[0].absolute())
        for number, file in enumerate(files[1:]):
            name = f"{number}" if files[0].name != f"{number}" else f"{number}_"
            (folder / name).symlink_to(file.absolute())

    def close(self) -> None:
        """Removes it."""
        self._remove()


def _unlink(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _remove_forgotten() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_LINKS}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
