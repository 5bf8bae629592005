"""Cells of a part: each is measured, written down at once, and not measured again by a later call."""

import json
import math
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from wsi_ncmi.core.files import write_json

Figures = Mapping[str, Any]
BROKEN_DEVICE = 75
"""Exit code of a part after an error that leaves the process without a usable device."""


class NotHereError(Exception):
    """What a cell needs isn't on this machine; the sentence says what and how to get it."""


class Record:
    """The cells of a part, in ``OUT/<part>.json``.

    Args:
        path: The file; cells in it that have figures aren't measured again.
        until: ``time.monotonic()`` after which no cell begins.
        again: The call goes on after a process that ended: cells that failed have had their turn.
    """

    def __init__(self, path: Path, until: float = math.inf, *, again: bool = False) -> None:
        self._path, self.until = path, until
        self.cells: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        self.cells.pop("part", None)  # an earlier process that didn't get as far as here
        ended = {name for name, cell in self.cells.items() if "begun" in cell}
        self._over = ended | {name for name, cell in self.cells.items() if again and "error" in cell}
        for name in ended:
            self.note(name, error="the process ended in this cell, or was ended at its limit")

    @property
    def left_s(self) -> float:
        """Seconds in which cells may still begin."""
        return self.until - time.monotonic()

    def measure(self, name: str, cell: Callable[[], Figures], needs_s: float = 0.0) -> Figures | None:
        """Figures of a cell: those on record, or measured now; None where it failed or had to be left out.

        Args:
            name: Of the cell, unique in its part.
            cell: Measures.
            needs_s: Seconds that it takes on a GPU; it isn't begun with fewer left.
        """
        known = self.cells.get(name, {})
        if "figures" in known:
            return dict(known["figures"])
        if name in self._over:
            return None
        if self.left_s < needs_s or self.left_s <= 0:
            self.note(name, left_out="no time was left")
            return None
        self.note(name, begun=True)
        began = time.monotonic()
        try:
            figures = {key: _plain(value) for key, value in cell().items()}
        except NotHereError as error:
            self.note(name, left_out=str(error))
            return None
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self.note(name, error=text, traceback=traceback.format_exc())
            if "CUDA error" in str(error):
                raise SystemExit(BROKEN_DEVICE) from error
            return None
        self.note(name, figures=figures, seconds=round(time.monotonic() - began, 1))
        return figures

    def note(self, name: str, **content: Any) -> None:
        """Writes what is known of a cell."""
        self.cells[name] = content
        write_json(self._path, self.cells)


def _plain(value: Any) -> Any:
    """A number of five digits; None for one that isn't finite."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def synchronise(device: torch.device) -> float:
    """Waits for the device; ``time.perf_counter()``."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def rate_of(step: Callable[[], int], device: torch.device, seconds: float) -> float:
    """Things per second of a step that gives how many it did, from the second call on.

    A device takes orders for a thousand kernels ahead: it is waited for after as many as fit in the time.
    """
    step()
    began = now = synchronise(device)
    count, steps = 0, 1
    while now - began < seconds:
        count += sum(step() for _ in range(steps))
        now, before = synchronise(device), now
        fitting = steps * (seconds - (now - began)) / max(now - before, 1e-9)
        steps = max(1, int(min(fitting, 16 * steps)))
    return count / (now - began)


def seconds_of(step: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds of a step that is repeated for so long, from the second call on."""

    def once() -> int:
        step()
        return 1

    return 1 / rate_of(once, device, seconds)


def ceilings(device: torch.device, seconds: float) -> Figures:
    """What the device does at best: matrix products, copies in its memory, copies to it from pinned memory.

    Returns:
        ``fp32_tflops``, ``bf16_tflops``, ``copy_gb_s`` (bytes read and written) and ``upload_gb_s``.
    """
    on_gpu = device.type == "cuda"
    edge = 8192 if on_gpu else 256
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        spent = seconds_of(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, seconds)
        found[f"{name}_tflops"] = 2 * edge**3 / spent / 1e12
    count = 1 << (30 if on_gpu else 20)
    source, target = (torch.empty(count, dtype=torch.uint8, device=device) for _ in range(2))
    found["copy_gb_s"] = 2 * count / seconds_of(lambda: target.copy_(source), device, seconds) / 1e9
    host = torch.empty(count >> 2, dtype=torch.uint8, pin_memory=on_gpu)
    part = target[: count >> 2]
    spent = seconds_of(lambda: part.copy_(host, non_blocking=True), device, seconds)
    found["upload_gb_s"] = len(host) / spent / 1e9
    return found
