"""Which slides of an inventory a job works on."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides import SlideRecord, slide_id_of

if TYPE_CHECKING:
    from wsi_ncmi.workflows.extraction_request import ExtractionRequest

__all__ = ["choose_slides"]


def choose_slides(records: Sequence[SlideRecord], request: ExtractionRequest) -> list[SlideRecord]:
    """The slides that a job works on: those of its list, and of them its part of a job array.

    Args:
        records: All slides of the inventory.
        request: The job.

    Raises:
        InputError: The list names slides that are not there, or there is no slide at all.
    """
    chosen = list(records)
    if request.only is not None:
        wanted = _listed(request.only)
        chosen = [record for record in chosen if slide_id_of(record.slide_id) in wanted]
        known = {slide_id_of(record.slide_id) for record in chosen}
        unknown = sorted(wanted - known)
        if unknown:
            raise InputError(
                f"{request.only} lists {len(unknown)} slides that are not below {request.slides} (the first: "
                f"{unknown[0]!r}); correct the list."
            )
    if request.slide_ids is not None:
        chosen = [record for record in chosen if record.slide_id in request.slide_ids]
    if request.shard is not None:
        number, count = request.shard
        chosen = chosen[number - 1 :: count]
    if not chosen and request.shard is None:
        raise InputError(f"There is no slide below {request.slides}; give the folder that holds them.")
    return chosen


def _listed(path: Path) -> set[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = csv.DictReader(handle)
            if "slide_id" not in (rows.fieldnames or ()):
                raise InputError(f"{path} needs a column 'slide_id'; it has {rows.fieldnames}.")
            return {slide_id_of(row["slide_id"].strip()) for row in rows if row["slide_id"]}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list {path} can't be read ({error}).") from error
