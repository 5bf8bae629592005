"""Slides that are known to fail: they stay in the ledger, and don't count for the exit code."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wsi_ncmi.core.tables import read_table
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.slides import slide_key

KNOWN = "known failure: "
"""Beginning of the reason of such a slide."""


def read_known_failures(path: Path) -> dict[str, str]:
    """Slide id → reason (empty: any) of the slides that are known to fail.

    Args:
        path: CSV with ``slide_id`` and perhaps ``reason``; of a ledger the rows that failed.

    Raises:
        InputError: It can't be read or has no such column.
    """
    table = read_table(path)
    table.require(("slide_id",))
    known: dict[str, str] = {}
    for row in table.rows:
        if row["slide_id"] and row["status"] in ("", "failed"):
            reason = " ".join(row["reason"].split()).removeprefix(KNOWN)
            if known.setdefault(slide_key(row["slide_id"]), reason) != reason:
                raise table.problem(row, "slide_id", "it is there before with another reason; keep one row")
    return known


def settle(
    rows: Sequence[LedgerRow], known: Mapping[str, str], present: Collection[str]
) -> tuple[list[LedgerRow], list[str]]:
    """Marks the rows that failed as known.

    Args:
        rows: Rows of a job, or of a ledger, which are marked already.
        known: As :func:`read_known_failures` gives it.
        present: Ids of all slides that are there.

    Returns:
        The rows, and a remark for each listed slide that was done, failed otherwise, or isn't there.
    """
    settled: list[LedgerRow] = []
    remarks = [
        f"{each} is listed as a known failure and isn't among the slides; correct the list."
        for each in sorted(set(known) - {slide_key(slide_id) for slide_id in present})
    ]
    for row in rows:
        listed = known.get(slide_key(row.slide_id))
        if listed is None:
            settled.append(row)
        elif row.status != "failed":
            settled.append(row)
            remarks.append(f"{row.slide_id} is listed as a known failure and was done; take it off the list.")
        elif listed and listed != " ".join(row.reason.split()).removeprefix(KNOWN):
            settled.append(row)
            remarks.append(f"{row.slide_id} failed otherwise than the list says ({listed}).")
        else:
            settled.append(replace(row, reason=f"{KNOWN}{row.reason.removeprefix(KNOWN)}"))
    return settled, remarks


def is_known(row: LedgerRow) -> bool:
    """Whether a row is of a slide that failed as known."""
    return row.status == "failed" and row.reason.startswith(KNOWN)
