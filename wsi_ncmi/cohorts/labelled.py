"""What an adapter hands over: rows as the source has them, not yet validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_ncmi.cohorts.table import TableRow

__all__ = ["Labelled", "LabelledRow"]


@dataclass(frozen=True)
class LabelledRow:
    """One slide as the source says; ``case_id`` None = the source knows no patient."""

    source: TableRow
    slide_id: str
    case_id: str | None
    label: str
    centre: str = ""


@dataclass(frozen=True)
class Labelled:
    """All slides of a source.

    Attributes:
        rows: The slides.
        classes: All classes of the task in order; empty = those that occur.
        case_problem: Why there are no reliable patient ids, continuing "FILE …"; empty = there are.
        official_split: Slide id (without extension) → ``train`` | ``validation`` | ``test``.
        notes: Sentences for the report.
        origin: The file whose lines ``rows`` count, where it isn't the table that was named.
    """

    rows: Sequence[LabelledRow]
    classes: tuple[str, ...] = ()
    case_problem: str = ""
    official_split: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origin: Path | None = None
