"""Where a job's files lie, and what an output that can't be written to means."""

from __future__ import annotations

import contextlib
import errno
import glob
from collections.abc import Iterator
from pathlib import Path

from wsi_ncmi.encoders import encoder_folder_name
from wsi_ncmi.errors import SlideError, WsiNcmiError
from wsi_ncmi.files import TEMPORARY_SUFFIX

__all__ = [
    "OutputError",
    "feature_path",
    "output_errors",
    "remove_leftovers",
    "thumbnail_path",
    "tissue_path",
]


class OutputError(WsiNcmiError):
    """Results can't be written: it would hit every slide, so the job stops; what is done stays done."""


def feature_path(out: Path, encoder_name: str, slide_id: str) -> Path:
    """``<out>/features/<encoder>/<slide_id>.h5``."""
    return out / "features" / encoder_folder_name(encoder_name) / f"{slide_id}.h5"


def tissue_path(out: Path, slide_id: str) -> Path:
    """``<out>/tissue/<slide_id>.geojson``."""
    return out / "tissue" / f"{slide_id}.geojson"


def thumbnail_path(out: Path, slide_id: str) -> Path:
    """``<out>/thumbnails/<slide_id>.jpg``."""
    return out / "thumbnails" / f"{slide_id}.jpg"


@contextlib.contextmanager
def output_errors(out: Path) -> Iterator[None]:
    """Turns errors of writing below ``out`` into one sentence.

    Raises:
        OutputError: The disk is full, the folder read-only or gone…: the job can't go on.
        SlideError: The name of this one slide is too long for the file system.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.ENAMETOOLONG:
            raise SlideError(
                f"The file system of {out} takes no name that long ({reason}); rename the slide."
            ) from error
        raise OutputError(
            f"Nothing more can be written to {out} ({reason}); free space or restore the folder, then give "
            "the same command again: what is done is kept."
        ) from error


def remove_leftovers(final: Path, process_id: int | None = None) -> int:
    """Removes temporary files that a killed writer of ``final`` left beside it.

    Args:
        final: The name under which the file would have appeared.
        process_id: Only those of this process; None for all (the caller holds the slide's claim).

    Returns:
        Number of files removed.
    """
    owner = "*" if process_id is None else f"{process_id}-*"
    removed = 0
    for leftover in final.parent.glob(f".{glob.escape(final.name)}.{owner}{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):
            leftover.unlink()
            removed += 1
    return removed
