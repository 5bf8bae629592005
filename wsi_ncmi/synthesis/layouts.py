"""What the two file layouts differ in: tags, description, tile size, levels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError

__all__ = ["aperio_description", "check_pyramid", "default_factors", "default_tile_px", "resolution_tags"]

_APERIO_FACTORS = (4, 16)
_SMALLEST_LEVEL_PX = 256


def resolution_tags(mpp: float | None, factor: int) -> dict[str, Any]:
    """Resolution tags of one level: pixels per centimetre, or no unit where mpp is None."""
    if mpp is None:
        return {"resolution": (1, 1), "resolutionunit": "NONE"}
    # As a fraction of integers (pixels per centimetre), so that no rounding hides in the tag.
    per_cm = Fraction(10_000) / (Fraction(str(mpp)) * factor)
    pair = (per_cm.numerator, per_cm.denominator)
    return {"resolution": (pair, pair), "resolutionunit": "CENTIMETER"}


def aperio_description(
    width: int, height: int, tile_px: int, quality: int, mpp: float | None, magnification: int | None
) -> str:
    """ImageDescription of a full-image directory, as Aperio's scanners write it."""
    text = f"Aperio Image Library v12.0.15 (wsi-ncmi synthetic)\r\n{width}x{height} [0,0 {width}x{height}] "
    text += f"({tile_px}x{tile_px}) JPEG/YCC Q={quality}"
    if magnification is not None:
        text += f"|AppMag = {magnification}"
    return text if mpp is None else f"{text}|MPP = {mpp}"


def default_tile_px(layout: str) -> int:
    """Edge of a tile where the caller doesn't say."""
    return 256 if layout == "aperio" else 512


def default_factors(layout: str, width: int, height: int) -> tuple[int, ...]:
    """4 and 16 (aperio), or powers of 2 while the longer side has 256 px and more (bigtiff)."""
    if layout == "aperio":
        return _APERIO_FACTORS
    factors: list[int] = []
    factor = 2
    while max(width, height) // factor >= _SMALLEST_LEVEL_PX and min(width, height) // factor >= 1:
        factors.append(factor)
        factor *= 2
    return tuple(factors)


def check_pyramid(path: Path, width: int, height: int, tile_px: int, factors: tuple[int, ...]) -> None:
    """Raises InputError where size, tile edge and downsamplings make no pyramid."""
    chain = (1, *factors)
    good = all(b > a and b % a == 0 for a, b in zip(chain, factors, strict=False))
    if width < 1 or height < 1 or min(width, height) // chain[-1] < 1 or not good:
        raise InputError(
            f"{path.name}: {width} × {height} px with levels {factors} is no pyramid; choose other factors."
        )
    if (
        tile_px % 16
        or tile_px < 16
        or any(tile_px % (b // a) for a, b in zip(chain[:1], factors[:1], strict=True))
    ):
        raise InputError(
            f"{path.name}: tile_px is {tile_px}; choose a multiple of 16 that the first factor divides."
        )
