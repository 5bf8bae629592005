"""Copies of slides on a local disk, made ahead of the readers where the slides' own storage is slow.

Each process has a folder of its own in the stage folder and holds a lock on it as long as it lives; a folder
whose lock can be taken is left over from a process that was killed, in whatever container it ran.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from wsi_ncmi.core.errors import InputError, plain_reason
from wsi_ncmi.slides.identity import fingerprint

_LOG = logging.getLogger(__name__)
_PREFIX, _LOCK = ".wsi-ncmi-stage-", ".lock"
_CHUNK_BYTES = 4 << 20
_ATTEMPTS, _PAUSE_S = 3, 0.5
_SHARE = 0.5
# Left to all others that use the disk.
_SPARE_BYTES = 256 << 20


class NotStagedError(Exception):
    """A slide is read where it is; the text says why, in a sentence."""


def prepare_stage(folder: Path, gib: float | None = None, processes: int = 1) -> int:
    """Makes the stage folder, and shares its room out.

    Args:
        folder: The folder.
        gib: GiB for all processes of this machine together; None = half of what is free on its disk.
        processes: Their number.

    Returns:
        Bytes that each process may have staged at a time.

    Raises:
        InputError: The folder can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            room = shutil.disk_usage(folder).free * _SHARE if gib is None else gib * 2**30
    except OSError as error:
        raise InputError(
            f"The stage folder {folder} can't be written to ({error.strerror}); choose another with --stage."
        ) from error
    return int(room / processes)


def clean_stage(folder: Path) -> None:
    """Removes the copies of processes that are gone."""
    with contextlib.suppress(OSError), _locked(folder):
        for left in folder.glob(f"{_PREFIX}*/"):
            # Without a lock it isn't ours, or nothing was copied yet.
            with contextlib.suppress(OSError), (left / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)


class StagedSlide:
    """A local copy of a slide; removed when it is released as often as it was taken.

    Attributes:
        files: Its files, the main one first.
        size_bytes: Their size.
    """

    def __init__(self, folder: Path, files: tuple[Path, ...], size_bytes: int) -> None:
        self.folder, self.files, self.size_bytes, self.users = folder, files, size_bytes, 1


class Stage:
    """The copies of one process; what dead processes left in the stage folder goes first.

    Args:
        folder: The stage folder, which is there.
        limit: Bytes of copies at a time.

    Raises:
        OSError: The folder can't be written to.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._limit, self._used, self._closed = limit, 0, False
        self._changed = threading.Condition()
        self._slides: dict[Path, StagedSlide] = {}
        clean_stage(folder)
        with _locked(folder):
            self.folder = folder / f"{_PREFIX}{secrets.token_hex(8)}"
            # Slides hold label pictures.
            self.folder.mkdir(mode=0o700)
            self._lock = (self.folder / _LOCK).open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def take(
        self, files: Sequence[Path], expected: str, waiting: Callable[[], AbstractContextManager[None]]
    ) -> StagedSlide:
        """Copies a slide, or takes the copy that is there; one thread at a time.

        Args:
            files: All its files, the main one first.
            expected: Its fingerprint; empty where it isn't known.
            waiting: Makes the context that is held while others use up the room.

        Raises:
            NotStagedError: It is to be read where it is: there is no room for it, or no whole copy.
        """
        main = files[0].absolute()
        with self._changed:
            if main in self._slides:
                self._slides[main].users += 1
                return self._slides[main]
        try:
            size = sum(file.stat().st_size for file in files)
        except OSError as error:
            raise NotStagedError(self._not_whole(main, plain_reason(error, main))) from error
        self._acquire(size, waiting)
        folder = self.folder / secrets.token_hex(4)
        base = Path(os.path.commonpath([file.absolute().parent for file in files]))
        copies = tuple(folder / file.absolute().relative_to(base) for file in files)
        try:
            for file, copy in zip(files, copies, strict=True):
                copy.parent.mkdir(parents=True, exist_ok=True)
                self._copy(file, copy)
            if expected and fingerprint(copies[0], copies[1:]) != expected:
                raise NotStagedError(self._not_whole(main, "it isn't the slide of the inventory any more"))
        except BaseException as error:
            self._remove(folder, size)
            if isinstance(error, OSError):
                raise NotStagedError(self._not_whole(main, plain_reason(error, main))) from error
            raise
        staged = StagedSlide(folder, copies, size)
        with self._changed:
            self._slides[main] = staged
        return staged

    def release(self, staged: StagedSlide) -> None:
        """Gives a copy back; the last one removes it."""
        with self._changed:
            staged.users -= 1
            if staged.users:
                return
            self._slides = {main: each for main, each in self._slides.items() if each is not staged}
        self._remove(staged.folder, staged.size_bytes)

    def close(self) -> None:
        """Ends what is being copied, and removes all copies."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _acquire(self, size: int, waiting: Callable[[], AbstractContextManager[None]]) -> None:
        if size > self._limit:
            raise NotStagedError(
                f"Slides of more than a process's share of the stage folder ({self._limit / 1e9:.1f} GB; "
                "--stage-gib) are read where they are."
            )

        def fits() -> bool:
            free = shutil.disk_usage(self.folder).free
            return self._closed or (self._used + size <= self._limit and size + _SPARE_BYTES <= free)

        with self._changed:
            if not fits() and self._used:
                with waiting():
                    self._changed.wait_for(lambda: fits() or not self._used)
            if self._closed or not fits():
                raise NotStagedError(_FULL)
            self._used += size

    def _copy(self, source: Path, copy: Path) -> None:
        """Copies a file; a fault of its storage costs a pause and goes on where it happened."""
        before, done = source.stat(), 0
        with copy.open("wb", buffering=0) as out:
            for attempt in range(_ATTEMPTS):
                try:
                    with source.open("rb", buffering=0) as file:
                        file.seek(done)
                        while chunk := file.read(_CHUNK_BYTES):
                            self._write(out, chunk)
                            done += len(chunk)
                    break
                except OSError:
                    if attempt == _ATTEMPTS - 1:
                        raise
                    time.sleep(_PAUSE_S)
        after = source.stat()
        if done != after.st_size or before.st_mtime_ns != after.st_mtime_ns:
            raise NotStagedError(self._not_whole(source, "it changed meanwhile"))

    def _write(self, out: BinaryIO, chunk: bytes) -> None:
        if self._closed:
            raise NotStagedError("The job ends.")
        try:
            rest = memoryview(chunk)
            while rest:
                rest = rest[out.write(rest) :]
        except OSError as error:
            raise NotStagedError(_FULL) from error

    def _remove(self, folder: Path, size: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def _not_whole(self, file: Path, reason: str) -> str:
        return f"{file.name} can't be copied to the stage folder ({reason}) and is read where it is."


_FULL = "The disk of the stage folder is full; slides are read where they are until there is room."


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps others from looking for leftovers while a folder is made and not yet locked."""
    with (folder / f"{_PREFIX[:-1]}{_LOCK}").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
