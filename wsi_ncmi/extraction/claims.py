"""Claims on slides: one process at a time works on a slide, over all jobs and hosts of an output folder.

A claim is a file made with ``O_EXCL`` (atomic on local disks and on NFS since version 3). Its holder
refreshes the file's time; a claim whose process is dead on this host is taken at once, any other when its
heartbeat has lapsed. Files are published atomically, so even a claim broken in error costs double work and
no corruption.
"""

import contextlib
import errno
import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import IdentityConflictError, InputError, JobStoppedError, counted
from wsi_ncmi.core.files import parse_json
from wsi_ncmi.core.leftovers import remove_leftovers, start_ticks
from wsi_ncmi.encoders import EncoderInfo
from wsi_ncmi.extraction.artifact_filter import found_artifacts
from wsi_ncmi.extraction.ledger import ALREADY_EXTRACTED, CLAIMED, LedgerRow
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.checksum_trailer import check_trailer
from wsi_ncmi.features.reader import open_features_file, read_identity
from wsi_ncmi.features.schema import difference
from wsi_ncmi.features.storage import check_same_mount, translate_os_errors

_LOG = logging.getLogger(__name__)

LAPSE_S = 120.0
"""A claim that was not refreshed for this long is void."""

HEARTBEAT_S = 20.0
"""A holder refreshes its claim this often."""

_ATTEMPTS = 3


@contextlib.contextmanager
def claim(path: Path, *, heartbeat_s: float = HEARTBEAT_S, lapse_s: float = LAPSE_S) -> Iterator[bool]:
    """Claims a slide for the duration of the block.

    Args:
        path: The claim's file, one a slide; its folder exists.
        heartbeat_s: Seconds between refreshes.
        lapse_s: Age at which another process's claim is void.

    Yields:
        Whether the claim is ours; when not, another live process is at work on the slide.

    Raises:
        JobStoppedError: The folder can't be written to.
    """
    token = secrets.token_hex(16)
    with translate_os_errors(path):
        taken = _take(path, token, lapse_s)
    if not taken:
        yield False
        return
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, stop, heartbeat_s), daemon=True, name="claim")
    heart.start()
    try:
        yield True
    finally:
        stop.set()
        heart.join()
        with contextlib.suppress(OSError):
            if _read(path).get("token") == token:
                path.unlink()


def _beat(path: Path, stop: threading.Event, heartbeat_s: float) -> None:
    while not stop.wait(heartbeat_s):
        with contextlib.suppress(OSError):
            os.utime(path)


def _take(path: Path, token: str, lapse_s: float) -> bool:
    for _ in range(_ATTEMPTS):
        if _create(path, token):
            return True
        if not _is_void(path, lapse_s):
            return False
        # A process that finds a void claim may be late: another one may have put a live claim in its place.
        # So a claim is replaced only by the holder of a second claim, who checks again.
        guard = path.with_name(f".takeover-{path.name}")
        if _create(guard, token):
            try:
                # One that was released since must not be removed: the next may be in its place already.
                if _is_void(path, lapse_s, missing=False):
                    path.unlink(missing_ok=True)
                return _create(path, token)
            finally:
                guard.unlink(missing_ok=True)
        elif _is_void(guard, lapse_s, missing=False):
            # Its holder died in the instant of taking over.
            guard.unlink(missing_ok=True)
    return False


def _create(path: Path, token: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    text = json.dumps({"token": token, **_self()}).encode()
    try:
        if os.write(descriptor, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        # An empty claim does not name its dead holder: on a full disk it would stand until it lapses.
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return True


def _is_void(path: Path, lapse_s: float, *, missing: bool = True) -> bool:
    """Tells whether a claim has no live holder; ``missing`` is the answer for one that was released."""
    try:
        if is_alive(_read(path)) is False:
            return True
        return _folder_time(path.parent) - path.stat().st_mtime >= lapse_s
    except FileNotFoundError:
        return missing


def _folder_time(folder: Path) -> float:
    # The clock of the file server, not this host's: they may differ by more than a heartbeat.
    probe = folder / f".clock-{os.getpid()}-{secrets.token_hex(4)}.partial"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """Content of a claim; empty while its writer has not finished."""
    try:
        content = parse_json(path.read_bytes())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _self() -> dict[str, Any]:
    return {"host": _host(), "pid": os.getpid(), "started": start_ticks(os.getpid())}


def is_alive(holder: dict[str, Any]) -> bool | None:
    """Tells whether the process of a claim lives; None when that can't be known here (another host)."""
    if not holder.get("host") or holder["host"] != _host():
        return None
    # A number is given again after a while; the start time is not.
    return start_ticks(int(holder["pid"])) == holder.get("started")


def _host() -> str:
    # Containers on one host share its boot id but not the numbers of its processes.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - the link's text, not a path
    except OSError:
        return ""


def conflicts(tasks: Sequence[SlideTask], encoder: EncoderInfo) -> dict[str, str]:
    """Slides whose features would meet a file of another identity; only headers are read.

    Args:
        tasks: The job.
        encoder: Its encoder.

    Returns:
        Slide id → one sentence that names the file and the difference.
    """
    found = {}
    for task in tasks:
        if task.config.overwrite or task.record.problem:
            continue
        path = task.feature_path(encoder.name)
        with contextlib.suppress(InputError):  # one that can't be read fails alone
            if differs := _difference(task, encoder, path):
                found[task.record.slide_id] = _conflict(path, differs)
    return found


def check_conflicts(tasks: Sequence[SlideTask], encoder: EncoderInfo) -> None:
    """Refuses a job that would meet files of another identity.

    Args:
        tasks: The job.
        encoder: Its encoder.

    Raises:
        IdentityConflictError: Names the first such file, the difference, and how many there are.
    """
    if found := list(conflicts(tasks, encoder).values()):
        others = f" {counted(len(found), 'file')} like it." if len(found) > 1 else ""
        raise IdentityConflictError(f"{tasks[0].out}: {found[0]}{others}")


def clean_up(task: SlideTask, encoder_name: str) -> None:
    """Removes a dead process's temporary files and claim of a slide, as far as it can."""
    if task.record.problem:
        return  # nothing was ever begun
    for file in task.products(encoder_name):
        remove_leftovers(file)
    held = task.claim_path(encoder_name)
    with contextlib.suppress(OSError, JobStoppedError):
        if held.exists():
            with claim(held):
                pass  # a dead process's claim is taken, and released


def claim_slide(
    task: SlideTask, encoder: EncoderInfo, row: LedgerRow, held: contextlib.ExitStack
) -> LedgerRow | None:
    """Claims a slide that is to be extracted.

    Args:
        task: The slide.
        encoder: Its encoder.
        row: The row that the slide has so far.
        held: Takes the claim; it is released when this is closed.

    Returns:
        None when the slide is ours to extract; else its final row.

    Raises:
        IdentityConflictError: A file of another identity is there and ``overwrite`` is off.
        JobStoppedError: The output can't be written to.
    """
    files = task.products(encoder.name)
    path = files[0]
    claimed = task.claim_path(encoder.name)
    if skipped := _skip(task, encoder, path, row):
        if claimed.exists():
            clean_up(task, encoder.name)  # its holder was killed between publishing and releasing
        return skipped
    check_same_mount(task.out)
    with translate_os_errors(path):
        for file in (*files, claimed):
            file.parent.mkdir(parents=True, exist_ok=True)
    check_same_mount(task.out)
    if not held.enter_context(claim(claimed)):
        return replace(row, status="skipped", reason=CLAIMED)
    # The holder of the claim before us may have finished since the first check.
    if skipped := _skip(task, encoder, path, row):
        return skipped
    for file in files:
        remove_leftovers(file)
    return None


def _difference(task: SlideTask, encoder: EncoderInfo, path: Path) -> str:
    """Difference of a usable file at ``path`` from what this task would write; empty without one."""
    found = read_identity(path)
    if found is None or found == (wanted := task.identity(encoder)):
        return ""
    differs = difference(found, wanted)
    if (found.mpp_target, found.tile_px) == (wanted.mpp_target, wanted.tile_px):
        return differs
    return f"{differs} (--mpp {found.mpp_target:g} --tile-px {found.tile_px} goes on with those)"


def _skip(task: SlideTask, encoder: EncoderInfo, path: Path, row: LedgerRow) -> LedgerRow | None:
    if read_identity(path) is None:
        if path.exists():
            _LOG.warning("%s is no whole feature file of ours; it is made anew.", path.name)
        return None
    if differs := _difference(task, encoder, path):
        if task.config.overwrite:
            return None
        raise IdentityConflictError(f"{task.out}: {_conflict(path, differs)}")
    try:
        file = open_features_file(path)
        check_trailer(path)
        found = found_artifacts(task.config.artifacts, file.artifacts, dropped=file.n_artifact_tiles)
    except InputError as error:
        _LOG.warning("%s It is made anew.", error)
        return None
    return replace(
        row,
        status="skipped",
        reason=ALREADY_EXTRACTED,
        tiles=file.n_tiles,
        failed_reads=int(file.attrs["n_failed_reads"]),
        artifact_tiles=file.n_artifact_tiles,
        reader=str(file.attrs["reader"]),
        **found,
    )


def _conflict(path: Path, differs: str) -> str:
    return (
        f"{path.parent.name}/{path.name} holds features of another kind: {differs}; choose another --out, or "
        "replace them with --overwrite."
    )
