"""Slides or patients that a user leaves out, by a list in a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi import slides
from wsi_ncmi.core.errors import InputError

__all__ = ["Exclusion", "read_exclusion"]


@dataclass(frozen=True)
class Exclusion:
    """What a list leaves out.

    Attributes:
        name: Name of the list's file.
        entries: Slide ids (without slide extension) and patient ids.
    """

    name: str
    entries: frozenset[str]

    def covers(self, slide_id: str, case_id: str) -> bool:
        """Whether the slide, or its patient, is on the list."""
        return not self.entries.isdisjoint((slides.slide_id_of(slide_id), case_id))

    def unused(self, known: Iterable[str]) -> tuple[str, ...]:
        """Entries that name nothing known, sorted: usually a misspelling."""
        return tuple(sorted(self.entries - set(known)))


def read_exclusion(path: Path) -> Exclusion:
    """Reads a list: a slide or patient in each line (the first cell of a CSV), ``#`` begins a remark.

    Raises:
        InputError: The file can't be read, is not UTF-8 or names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The exclusion list {path} can't be read ({error}); save it as UTF-8 text."
        ) from error
    cells = (line.partition("#")[0].partition(",")[0].strip().strip('"') for line in lines)
    entries = frozenset(slides.slide_id_of(cell) for cell in cells if cell not in ("", "slide_id", "case_id"))
    if not entries:
        raise InputError(f"The exclusion list {path} names no slide; write one id in each line.")
    return Exclusion(path.name, entries)
