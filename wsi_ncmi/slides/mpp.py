"""Microns per pixel of level 0: a written chain, each link checked, and the user's table.

An explicit value of the user's per-slide table wins (the user knows this very slide). Otherwise, in
order: the scanner vendor's own property, the OME-XML's physical size, the TIFF resolution
tags, the objective power by the convention 10 / power (40× is 0.25 µm, the field's usual one), the cohort's
default. Nothing is guessed: without any of them the slide has no resolution and is reported.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi.core.errors import InputError, MissingMppError
from wsi_ncmi.core.tables import TableRow, read_table
from wsi_ncmi.core.values import parse_number
from wsi_ncmi.slides.base import Slide
from wsi_ncmi.slides.identity import slide_key
from wsi_ncmi.slides.ome import ome_mpp

FINEST_MPP = 0.02
"""At or below this many microns per pixel no value is believed (100× oil scans have about 0.05)."""

COARSEST_MPP = 100.0
"""Above this no value is believed."""

MPP_SOURCES = ("table", "vendor", "ome", "tiff", "objective", "default")
"""The links of the chain in the order in which they are asked."""

_OBJECTIVE_MICRONS = 10.0
_BELIEVABLE_POWERS = (0.5, 160.0)
# Dots per inch that image software writes unasked; none is a scanner's resolution (1200 dpi is 21 µm).
# fmt: off
_PRINT_DPI = (72, 75, 90, 96, 100, 120, 144, 150, 180, 192, 200, 240, 254,
               300, 360, 400, 600, 720, 1200, 2400)
# fmt: on
_MICRONS_PER_UNIT = {"inch": 25400.0, "centimeter": 10000.0, "millimeter": 1000.0, "micrometer": 1.0}
# OpenSlide fills openslide.mpp-x of these formats from the TIFF tags: the number is no vendor's.
_VENDORS_WITHOUT_OWN_MPP = ("generic-tiff", "image", "")


@dataclass(frozen=True)
class Mpp:
    """Resolution of level 0.

    Attributes:
        x: Microns per level-0 pixel along x.
        y: Microns per level-0 pixel along y (some scanners are anisotropic; neither is averaged away).
        source: Where the numbers came from, one of ``MPP_SOURCES``.
    """

    x: float
    y: float
    source: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.x) and math.isfinite(self.y) and self.x > 0 and self.y > 0):
            raise ValueError(f"Microns per pixel must be positive and finite, not {self.x} × {self.y}.")

    @property
    def mean(self) -> float:
        """Geometric mean of both axes: the side in µm of a square of one pixel's area."""
        return math.sqrt(self.x * self.y)


def is_believable_mpp(value: float) -> bool:
    """True if a number of microns per pixel can be a slide's (above 0.02, at most 100, finite)."""
    return math.isfinite(value) and FINEST_MPP < value <= COARSEST_MPP


def resolve_mpp(slide: Slide, *, table_mpp: float | None = None, default_mpp: float | None = None) -> Mpp:
    """Resolves a slide's microns per pixel through the chain of this module.

    Args:
        slide: An open slide; only its properties are read.
        table_mpp: The slide's own value in the user's table (µm per level-0 pixel, both axes), if any.
        default_mpp: The cohort's value for slides without any of their own, if any.

    Returns:
        The resolution of both axes with the name of the link that gave it.

    Raises:
        InputError: A value given by the user is not believable.
        MissingMppError: No link gives a believable value; the message says what each of them holds.
    """
    for name, value in (("table", table_mpp), ("cohort default", default_mpp)):
        if value is not None and not is_believable_mpp(value):
            raise InputError(
                f"The {name} gives {value:g} µm per pixel for {slide.path.name}; "
                f"give a value above {FINEST_MPP} and at most {COARSEST_MPP:g}."
            )
    if table_mpp is not None:
        return Mpp(table_mpp, table_mpp, "table")
    refusals: list[str] = []
    links = (
        ("vendor", _from_vendor), ("ome", _from_ome), ("tiff", _from_tiff), ("objective", _from_objective),
    )  # fmt: skip
    for source, link in links:
        found = link(slide)
        if not isinstance(found, str):
            return Mpp(*found, source)
        refusals.extend([found] if found else [])
    if default_mpp is not None:
        return Mpp(default_mpp, default_mpp, "default")
    raise MissingMppError(
        f"{slide.path.name} does not say how many microns a pixel has ({'; '.join(refusals)}); "
        "give it in an mpp table (--mpp-table, columns slide_id,mpp) or as the cohort's default."
    )


# Each link returns (x, y) in µm, or the reason why it has none as half a sentence (empty: not worth a word).


def _from_vendor(slide: Slide) -> tuple[float, float] | str:
    properties = slide.properties
    if slide.vendor in _VENDORS_WITHOUT_OWN_MPP:
        return "the format has no vendor property"
    texts = properties.get("openslide.mpp-x"), properties.get("openslide.mpp-y")
    if texts[0] is None or texts[1] is None:
        return "no vendor property"
    x, y = _number(texts[0]), _number(texts[1])
    if not (is_believable_mpp(x) and is_believable_mpp(y)):
        return f"the vendor property is {texts[0]} × {texts[1]} µm"
    return x, y


def _from_ome(slide: Slide) -> tuple[float, float] | str:
    found = ome_mpp(slide)
    if isinstance(found, str) or all(map(is_believable_mpp, found)):
        return found
    return f"the OME-XML gives {found[0]:g} × {found[1]:g} µm"


def _from_tiff(slide: Slide) -> tuple[float, float] | str:
    properties = slide.properties
    texts = properties.get("tiff.XResolution"), properties.get("tiff.YResolution")
    # TIFF 6.0: the unit is inch where the tag is absent, and readers fill that in.
    unit = properties.get("tiff.ResolutionUnit", "inch").strip().lower()
    if texts[0] is None or texts[1] is None:
        return "no TIFF resolution tag"
    x, y = _number(texts[0]), _number(texts[1])
    refusal = f"the TIFF resolution tag {texts[0]} × {texts[1]} per {unit} is a placeholder"
    if unit not in _MICRONS_PER_UNIT or not (x > 0 and y > 0) or x == y == 1:
        return refusal
    microns_x, microns_y = _MICRONS_PER_UNIT[unit] / x, _MICRONS_PER_UNIT[unit] / y
    if not (is_believable_mpp(microns_x) and is_believable_mpp(microns_y)):
        return refusal
    # 0.5 %: 28.35 pixels per centimetre is 72 dpi after rounding, and 118.11 is 300.
    if any(abs(25400.0 / microns_x - dpi) <= 0.005 * dpi for dpi in _PRINT_DPI):
        return refusal
    return microns_x, microns_y


def _from_objective(slide: Slide) -> tuple[float, float] | str:
    text = slide.properties.get("openslide.objective-power")
    if text is None:
        return "no objective power"
    power = _number(text)
    if not _BELIEVABLE_POWERS[0] <= power <= _BELIEVABLE_POWERS[1]:
        return f"the objective power is {text}"
    return _OBJECTIVE_MICRONS / power, _OBJECTIVE_MICRONS / power


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


_COLUMNS = ("slide_id", "mpp")


def read_mpp_table(path: Path) -> dict[str, float]:
    """Reads microns per level-0 pixel by slide.

    Args:
        path: As ``read_table`` takes it; further columns are ignored. Ids may carry the slide's extension.

    Returns:
        Slide id without extension → µm per pixel.

    Raises:
        InputError: The file can't be read, a column is missing, a value is no believable resolution, or a
            slide is there twice with different values; the message names file, row and value.
    """
    table = read_table(path)
    table.require(_COLUMNS)
    found: dict[str, float] = {}
    for row in table.rows:
        _add(found, row, f"{path.name}, line {row.line}")
    return found


def _add(table: dict[str, float], row: TableRow, where: str) -> None:
    name, text = row["slide_id"], row.values.get("mpp", "")
    if not name:
        raise InputError(f"{where}: slide_id is empty; name the slide.")
    value = parse_number(text)
    if not is_believable_mpp(value):
        raise InputError(
            f"{where}: mpp of {name} is {text!r}; "
            f"give microns per pixel above {FINEST_MPP} and at most {COARSEST_MPP:g}."
        )
    slide_id = slide_key(name)
    if table.setdefault(slide_id, value) != value:
        raise InputError(f"{where}: {name} has {text} here and {table[slide_id]:g} above; keep one of them.")
