"""Findings of the machine check, and its settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from wsi_ncmi.core.config import configclass


@dataclass(frozen=True)
class Finding:
    """One line of the check.

    Attributes:
        name: Name of the check.
        status: ``ok``, ``warn`` (works, but) or ``fail`` (won't work).
        detail: What was found.
        remedy: What to do; empty when ok.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""

    @classmethod
    def of(
        cls, name: str, detail: str, *, bad: bool, remedy: str = "", worst: Literal["warn", "fail"] = "warn"
    ) -> Self:
        """A finding that is in order unless it is bad; only then there is something to do."""
        return cls(name, worst if bad else "ok", detail, remedy if bad else "")


@configclass
class DoctorConfig:
    """Settings of the check.

    Attributes:
        out: Folder whose disk is measured; it need not exist.
        slides: Folder of slides that has to be readable; None checks none.
        probe_s: Seconds of the throughput probe; 0 leaves it out.
        gpu: Check the GPU alone: all that runs on it against the CPU, in under a minute.
    """

    out: Path = Path()
    slides: Path | None = None
    probe_s: Annotated[float, Field(ge=0)] = 5.0
    gpu: bool = False
