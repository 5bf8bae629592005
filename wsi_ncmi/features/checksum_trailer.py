r"""Checksum trailer of a feature file: its last line, over all bytes before it.

``sha256`` in the file's attributes covers features and coordinates; the trailer covers the attributes and
HDF5's own tables as well, and its absence shows a truncated file before HDF5 parses a damaged one. HDF5
ignores what follows its end of file, so every reader opens such a file.

A file is compared with its trailer before its numbers are used, once in a process for each change of it.
"""

import hashlib
import mmap
import re
from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import check_regular

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FORM = re.compile(rb"\nwsi-ncmi seal sha256 ([0-9a-f]{64})\n")
TRAILER_BYTES = len("\nwsi-ncmi seal sha256 ") + 64 + 1

_COMPARED: dict[Path, tuple[int, int, int]] = {}


def make_trailer(content: bytes | memoryview) -> bytes:
    """The trailer to append to ``content``."""
    return f"\nwsi-ncmi seal sha256 {hashlib.sha256(content).hexdigest()}\n".encode("ascii")


def has_trailer(path: Path) -> bool:
    """Tells whether a file ends with a trailer; cheap, the checksum is not compared.

    Raises:
        OSError: The file can't be read.
    """
    check_regular(path)
    with path.open("rb") as handle:
        handle.seek(0, 2)
        handle.seek(max(0, handle.tell() - TRAILER_BYTES))
        return _FORM.fullmatch(handle.read()) is not None


def trailer_error(path: Path) -> str:
    """Compares a file's bytes with its trailer.

    Returns:
        Empty when they agree, else what is wrong in words.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as handle:
        if handle.read(len(_SIGNATURE)) != _SIGNATURE:
            return "it is not an HDF5 file"
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            match = _FORM.fullmatch(view[-TRAILER_BYTES:])
            if match is None:
                return "its end is missing: it is truncated, or another program has rewritten it"
            digest, expected = hashlib.sha256(view[:-TRAILER_BYTES]).hexdigest(), match[1].decode("ascii")
            del match  # it holds the view, which would then refuse to close
    return "" if digest == expected else "its bytes are not those that were written (checksum differs)"


def check_trailer(path: Path) -> None:
    """Compares a file with its trailer, unless this process has since the file last changed.

    A file without a trailer was rewritten by another program: there is nothing to compare it with.

    Raises:
        InputError: The bytes differ.
        OSError: The file can't be read.
    """
    status = path.stat()
    # Who restores the time of the last change can't restore that of the entry.
    state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if _COMPARED.get(path) == state or not has_trailer(path):
        return
    if problem := trailer_error(path):
        raise InputError(
            f"{path} is damaged: {problem}; run 'wsi-ncmi verify {path.parent} --repair' and extract the "
            "slide again."
        )
    _COMPARED[path] = state
