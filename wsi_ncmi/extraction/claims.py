"""Claims: at most one process works on a slide, over any number of jobs and hosts on one output folder.

A claim is a file made with ``O_EXCL`` (atomic on local disks and on NFS since version 3). Its holder
refreshes the file's time; a claim whose process is dead on this host is taken at once, any other when its
heartbeat has lapsed. Files are published atomically, so even a claim broken in error costs double work and
no corruption.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsi_ncmi.features.leftovers import start_ticks
from wsi_ncmi.features.storage import storing

__all__ = ["HEARTBEAT_S", "LAPSE_S", "claim", "is_alive"]

LAPSE_S = 120.0
"""A claim that was not refreshed for this long is void."""

HEARTBEAT_S = 20.0
"""How often a holder refreshes its claim."""

_ATTEMPTS = 3


@contextlib.contextmanager
def claim(path: Path, *, heartbeat_s: float = HEARTBEAT_S, lapse_s: float = LAPSE_S) -> Iterator[bool]:
    """Claims a slide for the duration of the block.

    Args:
        path: The claim's file, one a slide; its folder exists.
        heartbeat_s: Seconds between refreshes.
        lapse_s: Age at which somebody else's claim is void.

    Yields:
        Whether the claim is ours; when not, another live process is at work on the slide.

    Raises:
        JobStoppedError: The folder can't be written to.
    """
    token = secrets.token_hex(16)
    with storing(path):
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
        # Who finds a void claim may be late: another one may have put a live claim in its place. So a claim
        # is replaced only by the holder of a second claim, who looks again.
        guard = path.with_name(f".takeover-{path.name}")
        if _create(guard, token):
            try:
                # One that was released since is nobody's to remove: the next may be in its place already.
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
        # An empty claim tells nobody that its holder is gone: on a full disk it would stand until it lapses.
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return True


def _is_void(path: Path, lapse_s: float, *, missing: bool = True) -> bool:
    """Whether nobody holds the claim any more; ``missing`` is the answer for one that was released."""
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
    """What a claim says; empty for one whose writer has not got that far."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _self() -> dict[str, Any]:
    return {"host": _host(), "pid": os.getpid(), "started": start_ticks(os.getpid())}


def is_alive(holder: dict[str, Any]) -> bool | None:
    """Whether the process of a claim lives; None when that can't be known here (another host)."""
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
