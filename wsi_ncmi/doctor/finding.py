"""One line of the machine check, and what the check is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Finding", "Request", "existing_folder"]


@dataclass(frozen=True)
class Finding:
    """One line of the check.

    Attributes:
        name: What was looked at.
        status: ``ok``, ``warn`` (works, but) or ``fail`` (won't work).
        detail: What was found.
        remedy: What to do; empty when ok.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Request:
    """What is to be looked at.

    Attributes:
        out: Folder whose disk is measured; it need not exist.
        slides: Folder of slides that has to be readable; None looks at none.
        probe_s: Seconds of the throughput probe; 0 leaves it out.
    """

    out: Path = Path()
    slides: Path | None = None
    probe_s: float = 5.0


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
