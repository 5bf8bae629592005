"""Files that exist only when they are whole: temporary name in the same folder, fsync, rename."""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import stat
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.values import printable

TEMPORARY_SUFFIX = ".partial"
OUTPUT_MARKER = ".wsi-ncmi-output"
"""Name of a file that says that a job made its folder; no verb searches such a folder for slides."""

_MAX_DIGITS = 20
_SMALL_BYTES = 64 << 20
_MAX_INFLATION = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MAX_NAME_BYTES = 100


@contextlib.contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``final`` and publishes it under that name when the block succeeds.

    The content is fsynced before the rename and the folder after it, so a file with the final name is
    whole even after ``kill -9`` or power loss. When the block raises, the temporary file is removed.

    Args:
        final: The name under which the file is to appear.

    Yields:
        The temporary path to write to (same folder, suffix ``.partial``).

    Raises:
        OSError: The folder is not writable or the disk is full.
    """
    temporary = final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, final)
        _sync_folder(final.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    # Network file systems may refuse to open a folder for fsync; the rename itself has happened.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a mapping as indented JSON atomically, readable; NaN and infinity are refused."""
    lines = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).split("\n")
    # Letters of all scripts stay readable; what a terminal would obey or not show is escaped.
    write_text(path, "\n".join(line if printable(line) == line else _ascii(line) for line in lines) + "\n")


def _ascii(line: str) -> str:
    return re.sub(r"[^ -~]", lambda found: json.dumps(found[0])[1:-1], line)


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def check_folder(path: Path, flag: str = "--out") -> None:
    """Finds out whether an output folder could be made and written to; makes nothing.

    Args:
        path: The folder.
        flag: The flag that names it, for the message.

    Raises:
        InputError: It couldn't, with the reason.
    """
    try:
        parent = existing_folder(path)
    except OSError as error:  # a name that is too long
        raise _not_writable(path, error.strerror or str(error), flag) from error
    if not parent.is_dir():
        raise _not_writable(path, f"{parent.name} is a file", flag)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise _not_writable(path, "Permission denied", flag)


def ensure_folder(path: Path) -> Path:
    """Makes an output folder and proves that it can be written to.

    Args:
        path: The folder; parents are made as needed.

    Returns:
        The same path.

    Raises:
        InputError: It can't be made or written to, with the reason.
    """
    probe = path / f".wsi-ncmi-write-test-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(path, error.strerror or str(error)) from error
    return path


def job_folder(path: Path) -> Path:
    """As :func:`ensure_folder`, with :data:`OUTPUT_MARKER` where the folder was not there or empty.

    A folder that holds other files may be the user's, with slides in it.
    """
    is_new = not path.is_dir() or not any(path.iterdir())
    ensure_folder(path)
    if is_new:
        try:
            (path / OUTPUT_MARKER).write_text("wsi-ncmi made this folder; it is not searched for slides.\n")
        except OSError as error:
            raise _not_writable(path, error.strerror or str(error)) from error
    return path


def irregular_kind(path: Path) -> str:
    """What something is that is neither a file nor a folder, in words; empty for those, links followed.

    Opening a named pipe waits until somebody writes to it, which may be for ever.

    Raises:
        OSError: There is nothing.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def check_regular(path: Path) -> None:
    """Makes sure that opening a file does not wait for somebody at the other end of a pipe.

    Raises:
        OSError: It is no regular file, or nothing is there.
    """
    if kind := irregular_kind(path):
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")


def _not_writable(path: Path, reason: str, flag: str = "--out") -> InputError:
    return InputError(
        f"The output folder {path} can't be written to ({reason}); "
        f"choose another folder with {flag} or change its permissions."
    )


def parse_json(text: str | bytes) -> Any:
    """JSON of others: nested too deeply or with a number beyond all bounds it is no JSON either.

    Raises:
        ValueError: The text is no JSON, or no UTF-8.
    """
    try:
        return json.loads(text, parse_float=_bounded_float, parse_int=_bounded_int)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _bounded_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _bounded_int(text: str) -> int:
    if len(text) > _MAX_DIGITS or abs(int(text)) >= 2**63:
        raise ValueError(f"the number {text[:20]} is too large")
    return int(text)


def inflates_beyond_measure(claimed_bytes: int, stored_bytes: int) -> bool:
    """Whether so many stored bytes claim to become more than any sound content does."""
    return claimed_bytes > max(_SMALL_BYTES, _MAX_INFLATION * stored_bytes)


def check_inflation(path: Path) -> None:
    """Refuses a zip file whose members would inflate beyond measure; what is no zip file passes.

    Raises:
        ValueError: It is one.
        OSError, zipfile.BadZipFile: It can't be read.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    total = sum(entry.file_size for entry in members)
    if inflates_beyond_measure(total, path.stat().st_size):
        largest = max(members, key=lambda entry: entry.file_size)
        raise ValueError(
            f"its {path.stat().st_size:,} bytes claim to inflate to {total:,}, of which "
            f"{largest.filename} has {largest.file_size:,}"
        )


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes as a hex string."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def path_safe(name: str) -> str:
    """Replaces every character outside ``[A-Za-z0-9._-]`` with ``_`` (the rule of the CLI contract).

    Dots at the end become ``_`` too, and a device name of Windows gets one in front.
    """
    stem = name.rstrip(".")
    safe = _UNSAFE.sub("_", stem) + "_" * (len(name) - len(stem))
    return f"_{safe}" if _DEVICE.fullmatch(safe) or not safe else safe


def shortened(name: str, most_bytes: int) -> str:
    """The name, or its beginning and a hash where it is longer than so many bytes (UTF-8)."""
    encoded = _encoded(name)
    if len(encoded) <= most_bytes:
        return name
    return f"{encoded[: max(most_bytes - 9, 0)].decode('utf-8', 'ignore')}-{_hash(encoded)}"


def distinct_file_names(names: Iterable[str]) -> dict[str, str]:
    """Name → what stands for it in file names; no two are equal, upper and lower case counting as one.

    Letters of all scripts stay, other characters become ``_``; in names that would be equal then (``T1+`` and
    ``T1?``) they are spelled out, and what even so differs in case only ends in a hash.
    """
    found = {name: _readable(name, lambda _: "_") for name in names}
    for spelled in (True, False):
        taken = Counter(value.casefold() for value in found.values())
        for name, value in list(found.items()):
            if taken[value.casefold()] > 1:
                found[name] = _readable(name, _spelled) if spelled else f"{value}-{_hash(_encoded(name))}"
    return found


def _readable(name: str, other: Callable[[str], str]) -> str:
    name = unicodedata.normalize("NFC", name)
    kept = (c if c in "._-" or unicodedata.category(c)[0] in "LMN" else other(c) for c in name)
    return shortened("".join(kept), _MAX_NAME_BYTES)


def _spelled(character: str) -> str:
    if character == " ":
        return "_"
    return "-" + unicodedata.name(character, f"u{ord(character):x}").lower().replace(" ", "-")


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
