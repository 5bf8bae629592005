"""An inventory that was taken before, so that each part of a job array need not open every slide again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides import SlideRecord, read_slides_csv

if TYPE_CHECKING:
    from wsi_ncmi.workflows.extraction_request import ExtractionRequest

__all__ = ["check_unchanged", "known_slides"]


def known_slides(request: ExtractionRequest) -> tuple[SlideRecord, ...]:
    """The slides as ``wsi-ncmi inventory`` found them.

    Args:
        request: The job; its ``inventory`` names the table.

    Raises:
        InputError: The table can't be read, or the job states resolutions that the table has settled.
    """
    if request.inventory is None:
        raise ValueError("the request names no inventory")
    if request.mpp_table is not None or request.default_mpp is not None:
        raise InputError(
            "--inventory holds the resolution of every slide already; give --mpp-table or --default-mpp to "
            "wsi-ncmi inventory instead."
        )
    if not request.slides.exists():
        raise InputError(
            f"There is no file or folder {request.slides}; give the folder that holds the slides."
        )
    return read_slides_csv(request.inventory)


def check_unchanged(records: Sequence[SlideRecord], root: Path, inventory: Path) -> None:
    """Makes sure that slides still are what an inventory says, as far as their sizes tell.

    Args:
        records: The slides that are to be worked on.
        root: The folder that their paths are relative to, or the one slide.
        inventory: The table, for the message.

    Raises:
        InputError: A slide is gone or has another size; the first one is named.
    """
    changed = []
    for record in records:
        if record.problem:
            continue
        path = root if root.is_file() else root / record.path
        try:
            size = path.stat().st_size
        except OSError:
            changed.append((record, "is not there any more"))
            continue
        # The recorded size is that of all files of a slide; most have one.
        if size > record.size_bytes or (size < record.size_bytes and not _has_several(path)):
            changed.append((record, f"has {size} bytes instead of {record.size_bytes}"))
    if changed:
        record, what = changed[0]
        raise InputError(
            f"{record.path} {what} since {inventory.name} was written ({len(changed)} slides like it); write "
            "it again with wsi-ncmi inventory."
        )


def _has_several(path: Path) -> bool:
    return path.suffix.lower() in (".mrxs", ".vms", ".vmu", ".dcm", "") or path.is_dir()
