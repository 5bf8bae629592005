"""Paths of a slide's products in the output folder."""

import re
from pathlib import Path

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import encoder_folder_name


def set_name(mpp: float) -> str:
    """The name of a further set of features, by its resolution: ``1um`` for 1 µm per pixel."""
    return f"{mpp:.12g}um"


def feature_folder(out: Path, encoder_name: str, features_set: str = "") -> Path:
    """``OUT/features/<encoder>``; ``OUT/features/<encoder>@<set>`` for a further set of the same slides.

    No encoder's folder has an ``@`` (``encoder_folder_name`` replaces it), so the two never meet.
    """
    return out / "features" / _of_set(encoder_folder_name(encoder_name), features_set)


def feature_path(out: Path, encoder_name: str, slide_id: str, features_set: str = "") -> Path:
    """``OUT/features/<encoder>/<slide_id>.h5``, or below ``<encoder>@<set>``.

    Raises:
        InputError: The slide id would lead out of the folder.
    """
    return feature_folder(out, encoder_name, features_set) / f"{_checked(slide_id)}.h5"


def tissue_path(out: Path, slide_id: str) -> Path:
    """``OUT/tissue/<slide_id>.geojson``."""
    return out / "tissue" / f"{_checked(slide_id)}.geojson"


def thumbnail_path(out: Path, slide_id: str, features_set: str = "") -> Path:
    """``OUT/thumbnails/<slide_id>.jpg``, or below ``thumbnails@<set>`` (the tiles drawn are others)."""
    return out / _of_set("thumbnails", features_set) / f"{_checked(slide_id)}.jpg"


def claims_folder(out: Path, encoder_name: str, features_set: str = "") -> Path:
    """``OUT/features/<encoder>/.claims``: one file for each slide that is being worked on."""
    return feature_folder(out, encoder_name, features_set) / ".claims"


def ledger_path(out: Path, features_set: str = "", shard: tuple[int, int] | None = None) -> Path:
    """``OUT/ledger.csv``, ``OUT/ledger@<set>.csv``; ``…_<i>_of_<n>.csv`` for a part of a job array."""
    part = "" if shard is None else "_{}_of_{}".format(*shard)
    return out / f"{_of_set('ledger', features_set)}{part}.csv"


def contact_sheet_path(out: Path, features_set: str = "") -> Path:
    """``OUT/contact_sheet.html``, or ``contact_sheet@<set>.html``."""
    return out / f"{_of_set('contact_sheet', features_set)}.html"


def _of_set(name: str, features_set: str) -> str:
    return f"{name}@{features_set}" if features_set else name


def _checked(slide_id: str) -> str:
    # Slide ids come from file names and tables of others; they must stay names.
    if not slide_id or slide_id.startswith(".") or re.search(r"[/\\\x00]", slide_id):
        raise InputError(f"The slide id {slide_id!r} can't name a file; rename the slide.")
    return slide_id
