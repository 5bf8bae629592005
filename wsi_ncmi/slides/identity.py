"""Slide ids from file names, and fingerprints of content.

A fingerprint hashes the file's size, of a TIFF-based slide the directory entries and the table of stored
tiles (offset and compressed size of every single tile), and sixteen 4-KiB samples spread over the pixel
data. That suffices as an identity: the compressed size of a tile depends on its content, so two scans that
agree in thousands of sizes, in the total and in 64 KiB of samples are copies of each other. It does not see
a later edit in place that changes neither a tile's stored size nor a sample, which no scanner software
does; therefore "duplicate" is said only after a full comparison (:func:`files_sha256`). Of TIFF-based
slides only pyramid tiles are sampled, so bytes of label and macro images do not enter.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from wsi_ncmi import __version__
from wsi_ncmi.core.values import holds_control, printable, tidy
from wsi_ncmi.slides.plugins import announced
from wsi_ncmi.slides.tiff_layout import TiffLayout, read_tiff_layout

FLAT_EXTENSIONS = (".png", ".jpg", ".jpeg")
"""Flat images: one level, no resolution of their own."""

SLIDE_EXTENSIONS = (
    ".ome.tiff", ".ome.tif", ".svslide", ".qptiff", ".tiff", ".mrxs", ".ndpi", ".svs", ".tif", ".btf", ".scn",
    ".bif", ".vms", ".vmu", ".czi", ".dcm", *FLAT_EXTENSIONS,
)  # fmt: skip
"""Lower-case extensions of the files that an inventory lists, longer ones first where one ends another.

Those of :data:`UNREAD_FORMATS` and of plug-ins (``wsi_ncmi.readers``) come on top.
"""

UNREAD_FORMATS = {
    ".isyntax": "Philips iSyntax", ".i2syntax": "Philips iSyntax", ".vsi": "Olympus VSI",
    ".oir": "Olympus OIR", ".sdpc": "Sqray SDPC", ".dyqx": "Sqray DYQX", ".kfb": "KFBIO KFB",
    ".kfbf": "KFBIO KFB", ".tmap": "UNIC TMAP", ".tron": "TRON", ".mds": "Motic MDS", ".mdsx": "Motic MDSX",
    ".zarr": "OME-Zarr", ".zvi": "Zeiss ZVI", ".lif": "Leica LIF", ".nd2": "Nikon ND2",
    ".afi": "Aperio AFI (fluorescence)", ".jp2": "bare JPEG 2000", ".jpx": "bare JPEG 2000",
    ".j2k": "bare JPEG 2000", ".hdp": "JPEG XR", ".jxr": "JPEG XR",
}  # fmt: skip
"""Lower-case extensions of slides that optional readers and plug-ins alone open, and their names."""

_PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z")
_MAX_ID_BYTES = 180
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
# With the longest suffix that is written (.geojson) and that of a temporary file it makes 255.
_MAX_NAME_BYTES = 220


def has_base_extension(name: str) -> bool:
    """True if a file name ends like that of a slide which a base install reads (upper or lower case)."""
    return name.lower().endswith(SLIDE_EXTENSIONS)


def has_slide_extension(name: str) -> bool:
    """True if a file name ends like a slide's which a base install or a plug-in reads, in either case."""
    return name.lower().endswith((*SLIDE_EXTENSIONS, *announced()))


def unread_format(name: str) -> str:
    """A format that a base install doesn't read, as ``a slide of the format KFBIO KFB``; or empty."""
    stem, dot, extension = name.lower().rpartition(".")
    extension = dot + extension
    if extension in _PACKED and has_slide_extension(stem):
        return f"a slide packed as {extension}"
    return (
        f"a slide of the format {UNREAD_FORMATS[extension]}" if extension in UNREAD_FORMATS and stem else ""
    )


def shown_path(relative: str) -> tuple[str, str]:
    r"""A path as tables and terminals can hold it, and why its slide can't be worked on.

    Args:
        relative: A path below the root with ``/``, as the file system gives it.

    Returns:
        The path, with escapes (``\x0d``) in place of what can't be shown; and empty text, or half a sentence
        about its name. Names of files become ids and names of further files.
    """
    name = relative.rsplit("/", 1)[-1]
    try:
        relative.encode("utf-8")
    except UnicodeEncodeError:
        return _escaped(relative), "is not valid UTF-8"
    if holds_control(relative):
        return _escaped(relative), "holds a control character"
    if "\\" in name:
        return _escaped(relative), "holds a backslash"
    length = len(slide_id_of(name).encode("utf-8"))
    if length > _MAX_NAME_BYTES:
        return (
            relative,
            f"has {length} bytes, where {_MAX_NAME_BYTES} are the most that leaves room for results",
        )
    return relative, ""


def _escaped(text: str) -> str:
    # Backslashes are doubled, so that no two names look alike.
    return printable(os.fsencode(text).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace"))


def slide_id_of(name: str) -> str:
    """The id of a slide from its file's name: without the slide extension, and only that.

    TCGA names contain dots, so anything else that looks like an extension stays.

    Args:
        name: A file name without folders, or an id (which is returned as it is).

    Returns:
        The id; a name of nothing but dots becomes underscores, because ids become file names.
    """
    lower = name.lower()
    for extension in (*SLIDE_EXTENSIONS, *UNREAD_FORMATS, *announced()):
        if lower.endswith(extension) and len(name) > len(extension):
            name = name[: -len(extension)]
            break
    return name if name.strip(".") else "_" * max(len(name), 1)


class SlideIndex:
    """Slide ids that are found again with or without slide extension, and in either form of Unicode.

    Args:
        slide_ids: Ids as they are spelled where they come from.
    """

    def __init__(self, slide_ids: Iterable[str]) -> None:
        self._ids = dict.fromkeys(slide_ids)
        self._by_key: dict[str, list[str]] = {}
        for slide_id in self._ids:
            self._by_key.setdefault(slide_key(slide_id), []).append(slide_id)

    def candidates(self, name: str) -> list[str]:
        """The ids that a name of another source may mean: itself where it is there, else those of its key."""
        return [name] if name in self._ids else self._by_key.get(slide_key(name), [])

    def spelled(self, name: str) -> str:
        """The one id that a name may mean, or the name as it is."""
        found = self.candidates(name)
        return found[0] if len(found) == 1 else name


def slide_key(name: str) -> str:
    """What ids of two sources are compared by: without slide extension, blanks around, and in NFC."""
    return slide_id_of(tidy(name))


def file_name_of(text: str) -> str:
    """A text such as a barcode as the name of a file: what can't stand in one is ``_``; empty stays empty."""
    return text and _short(slide_id_of(_NOT_IN_NAMES.sub("_", tidy(text))), text, _MAX_NAME_BYTES)


def assign_slide_ids(
    relative_paths: Sequence[str],
    given: Mapping[str, str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    first: int = 0,
) -> list[str]:
    """Gives every file of a job an id of its own.

    A name that only one file has is its id. Files that share a name get their path below the root with
    ``/`` as ``__`` (still without extension); where even that is shared (``a.svs`` beside ``a.tif``), the
    extension stays; in the last resort a hash of the path is added, as it is to names and paths too long for
    a file name. An id that was given once stays with its path, whatever else arrives.

    Args:
        relative_paths: Paths below the root with ``/``, each once.
        given: Path → id of earlier jobs; ids of files that are gone aren't given again.
        names: Path → names that its content gives it, which go before the path; empty ones are none.
        first: How many of those names are passed over.

    Returns:
        One id a path, all different, independent of the order of the paths.
    """
    of_path: tuple[Callable[[str], str], ...] = (
        lambda path: _short(slide_id_of(path.rsplit("/", 1)[-1]), path, _MAX_NAME_BYTES),
        lambda path: _short(slide_id_of(path.replace("/", "__")), path),
        lambda path: _short(path.replace("/", "__"), path),
        lambda path: _short(f"{path.replace('/', '__')}.{_digest(path)}", path),
    )
    content = names or {}

    def ways(path: str) -> list[str]:
        return [*content.get(path, ()), *(way(path) for way in of_path)]

    here = frozenset(relative_paths)
    kept = {
        path: name for path, name in (given or {}).items()
        if name.strip(".") and (name in ways(path) or (path not in here and not _NOT_IN_NAMES.search(name)))
    }  # fmt: skip
    passed = {path: min(first, len(known)) for path, known in content.items()}
    left = {path: ways(path)[passed.get(path, 0) :] for path in relative_paths if path not in kept}
    while True:
        ids = kept | {path: names_left[0] for path, names_left in left.items()}
        count = Counter(ids.values())
        shared = [path for path in left if (count[ids[path]] > 1 and len(left[path]) > 1) or not ids[path]]
        if not shared:
            return [ids[path] for path in relative_paths]
        # A slide keeps its name beside one of a format that most often isn't read.
        for path in [path for path in shared if unread_format(path.rsplit("/", 1)[-1])] or shared:
            del left[path][0]


def _short(name: str, path: str, most: int = _MAX_ID_BYTES) -> str:
    name = name.replace("\\", "_")  # of names that are not worked on (shown_path); ids are file names
    if len(name.encode("utf-8", "surrogateescape")) <= most:
        return name
    return f"{name[: _MAX_ID_BYTES // 4]}.{_digest(path)}"


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:12]


# The file itself holds label and overview; the slide is in its companions.
_PICTURES_ONLY = (".vsi",)
_VERSION = b"wsi-ncmi fingerprint 1\n"
_SAMPLES = 16
_SAMPLE_BYTES = 4096


def fingerprint(path: Path, companions: Sequence[Path] = ()) -> str:
    """The content fingerprint of a slide.

    Args:
        path: The slide's main file.
        companions: Further files of a multi-file slide (MRXS data, DICOM series), in any order.

    Returns:
        32 hex digits that do not depend on names, times or place.

    Raises:
        OSError: A file can't be read.
    """
    digest = hashlib.sha256(_VERSION)
    digest.update(_file_digest(path))
    for part in sorted(_file_digest(companion) for companion in companions):
        digest.update(part)
    return digest.hexdigest()[:32]


def stamp_of(files: Iterable[Path]) -> str:
    """Short hash of sizes and times of files: the same as long as nobody has written to them.

    Who restores the time of the last change can't restore that of the entry.

    Raises:
        OSError: One isn't there.
    """
    found = (file.stat() for file in files)
    states = [(each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found]
    return hashlib.blake2b(repr((__version__, states)).encode(), digest_size=8).hexdigest()


def files_sha256(path: Path, companions: Sequence[Path] = ()) -> str:
    """SHA-256 over all bytes of a slide's files; slow, for confirming that two slides are the same."""
    parts = []
    for file in (path, *companions):
        with file.open("rb") as handle:
            parts.append(hashlib.file_digest(handle, "sha256").digest())
    return hashlib.sha256(parts[0] + b"".join(sorted(parts[1:]))).hexdigest()


def _file_digest(path: Path) -> bytes:
    pictures = path.name.lower().endswith(_PICTURES_ONLY)
    layout = None if pictures else read_tiff_layout(path)
    with path.open("rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        digest = hashlib.sha256(size.to_bytes(8, "little"))
        spans = [] if pictures else _pixel_spans(layout, size)
        if layout is not None:
            for directory in layout.pixel_directories:
                digest.update(directory.entries)
                digest.update(directory.offsets.astype("<u8").tobytes())
                digest.update(directory.byte_counts.astype("<u8").tobytes())
        for start, length in spans:
            handle.seek(start)
            digest.update(handle.read(length))
    return digest.digest()


def _pixel_spans(layout: TiffLayout | None, size: int) -> list[tuple[int, int]]:
    """Sixteen spans (offset, length) spread evenly over the pixel data (the whole file if not TIFF)."""
    starts, lengths = np.zeros(1, dtype=np.int64), np.array([size], dtype=np.int64)
    if layout is not None and not layout.damage and layout.pixel_directories:
        directories = layout.pixel_directories
        starts = np.concatenate([directory.offsets for directory in directories]).astype(np.int64)
        lengths = np.concatenate([directory.byte_counts for directory in directories]).astype(np.int64)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    spans = []
    for position in np.linspace(0, max(total - _SAMPLE_BYTES, 0), _SAMPLES).astype(np.int64):
        index = min(int(np.searchsorted(ends, position, side="right")), len(ends) - 1)
        if index < 0:
            break
        inside = int(position - (ends[index] - lengths[index]))
        spans.append((int(starts[index]) + inside, min(_SAMPLE_BYTES, int(lengths[index]) - inside)))
    return spans
