"""Pictures of a slide's label, glass or overview that stand beside it as files of their own.

Scanners and archives write them (``S1_label.tif``, ``S1_macro.jpg`` beside ``S1.svs``). The label bears the
patient's name or number as a rule.
"""

import re
from collections.abc import Collection
from pathlib import Path

from wsi_ncmi.slides.identity import FLAT_EXTENSIONS, slide_id_of
from wsi_ncmi.slides.tiff_layout import read_tiff_layout

_WORD = r"(?:slide[-_. ]?)?(?:label|macro|thumb(?:nail)?|overview|preview|barcode)"
_WORDS = re.compile(
    rf"[-_. (]*{_WORD}(?:[-_. ]?(?:image|img|photo|picture))?[-_. )]*\d{{0,2}}$|^{_WORD}[-_. ]+",
    re.IGNORECASE,
)
TIFF_EXTENSIONS = (".tif", ".tiff")
"""Files that may be slides, and that pictures are saved as too."""

# A macro camera gives some thousand pixels at 10 µm and more, a scanner has them at less than 5.
_NAMED_PX, _UNNAMED_PX = 5_000, 2_048
_FINE_PX_PER_CM = 2_000.0
_LARGEST_BYTES = 1 << 28


def is_side_picture(path: Path, slides: Collection[str], scanned: Collection[str]) -> bool:
    """Whether a file is a picture of another slide of its folder.

    Flat images are where their name is the slide's, with or without a word such as ``label``. TIFF files have
    to be of a picture's size too; without such a word, where the name only begins with that of a slide in a
    scanner's format, they have to be small, in strips and without the resolution of a slide.

    Args:
        path: The file.
        slides: Ids of the folder's files, flat images left out.
        scanned: Those in a scanner's format (neither flat images nor TIFF).
    """
    lower, stem = path.name.lower(), slide_id_of(path.name)
    bare = _WORDS.sub("", stem)
    is_named = bare != stem and bare in slides
    if lower.endswith(FLAT_EXTENSIONS):
        return is_named or stem in slides
    if not lower.endswith(TIFF_EXTENSIONS):
        return False
    if is_named:
        return _is_picture(path, _NAMED_PX)
    begins = any(stem[: match.start()] in scanned for match in re.finditer(r"[-_. (]", stem))
    return begins and _is_picture(path, _UNNAMED_PX, flat=True)


def _is_picture(path: Path, most_px: int, *, flat: bool = False) -> bool:
    """Whether the images of a TIFF file are so small; with ``flat``, whether none of them is a slide's.

    It is false for what can't be read, which the inventory will tell.
    """
    try:
        layout = read_tiff_layout(path) if path.stat().st_size <= _LARGEST_BYTES else None
    except OSError:
        return False
    if layout is None or not layout.directories:
        return False
    images = layout.directories
    if flat and any(image.tiled or image.px_per_cm >= _FINE_PX_PER_CM for image in images):
        return False
    return all(max(image.width_px, image.height_px) <= most_px for image in images)
