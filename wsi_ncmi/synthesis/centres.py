"""The five centres: scanner, file layout, stain and amount of tissue.

Two layouts are imitated: Aperio SVS (three centres) and the tiled BigTIFF in which CAMELYON's own slides come
(two centres). Stain vectors lie around those of Ruifrok & Johnston 2001 (H 0.650, 0.704, 0.286) and Macenko
et al. 2009 (H 0.563, 0.720, 0.406; E 0.216, 0.801, 0.558) and differ by centre about as much as those of real
laboratories do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CENTRES", "Centre", "Layout"]

Layout = Literal["aperio", "bigtiff"]
_Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Centre:
    """One laboratory with its scanner.

    Attributes:
        name: Name in the labels table.
        layout: File layout.
        mpp: Microns per level-0 pixel.
        tile_px: Tile edge in the file, px.
        magnification: Objective power written to the file (Aperio), or None.
        haematoxylin, eosin: Optical-density direction in R, G, B (need not have unit length).
        white: Intensity of empty glass in R, G, B (brightness of the lamp).
        haematoxylin_strength, eosin_strength: Factors of the optical density.
        tissue_mm2: Mean tissue area of a slide, mm².
        quality: JPEG quality.
    """

    name: str
    layout: Layout
    mpp: float
    tile_px: int
    magnification: int | None
    haematoxylin: _Rgb
    eosin: _Rgb
    white: _Rgb
    haematoxylin_strength: float
    eosin_strength: float
    tissue_mm2: float
    quality: int

    @property
    def suffix(self) -> str:
        """File extension with its dot."""
        return ".svs" if self.layout == "aperio" else ".tif"


CENTRES = (
    Centre(
        name="centre_0", layout="aperio", mpp=0.25, tile_px=256, magnification=40,
        haematoxylin=(0.650, 0.704, 0.286), eosin=(0.170, 0.880, 0.440), white=(243.0, 242.0, 244.0),
        haematoxylin_strength=1.0, eosin_strength=1.0, tissue_mm2=1.85, quality=75,
    ),
    Centre(
        name="centre_1", layout="aperio", mpp=0.50, tile_px=240, magnification=20,
        haematoxylin=(0.563, 0.720, 0.406), eosin=(0.216, 0.801, 0.558), white=(236.0, 233.0, 238.0),
        haematoxylin_strength=1.18, eosin_strength=0.86, tissue_mm2=2.5, quality=80,
    ),
    Centre(
        name="centre_2", layout="aperio", mpp=0.46, tile_px=256, magnification=20,
        haematoxylin=(0.720, 0.640, 0.280), eosin=(0.110, 0.850, 0.520), white=(247.0, 245.0, 243.0),
        haematoxylin_strength=0.86, eosin_strength=1.08, tissue_mm2=2.2, quality=80,
    ),
    Centre(
        name="centre_3", layout="bigtiff", mpp=0.243, tile_px=512, magnification=None,
        haematoxylin=(0.590, 0.760, 0.270), eosin=(0.090, 0.940, 0.330), white=(240.0, 240.0, 241.0),
        haematoxylin_strength=1.06, eosin_strength=1.10, tissue_mm2=1.9, quality=75,
    ),
    Centre(
        name="centre_4", layout="bigtiff", mpp=0.23, tile_px=512, magnification=None,
        haematoxylin=(0.660, 0.690, 0.300), eosin=(0.240, 0.880, 0.400), white=(228.0, 226.0, 229.0),
        haematoxylin_strength=0.92, eosin_strength=0.94, tissue_mm2=1.9, quality=75,
    ),
)  # fmt: skip
