"""The five centres: scanner, file layout, stain (Beer–Lambert) and amount of tissue.

Two layouts are imitated: Aperio SVS (three centres) and the tiled BigTIFF in which CAMELYON's own slides come
(two centres). Stain vectors lie around those of Ruifrok & Johnston 2001 (H 0.650, 0.704, 0.286) and Macenko
et al. 2009 (H 0.563, 0.720, 0.406; E 0.216, 0.801, 0.558) and differ by centre about as much as those of real
laboratories do.

``RGB = white · 10^−(h·S·H + e·S·E)`` with unit stain directions H and E (Ruifrok & Johnston 2001) and
densities h, e that are stored as uint8 with ``OD_SCALE`` per 255.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FileLayout = Literal["aperio", "bigtiff"]
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
    layout: FileLayout
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


#: Optical density of the value 255.
OD_SCALE = 1.75


def stain_table(
    centre: Centre, haematoxylin_factor: float = 1.0, eosin_factor: float = 1.0, darker: int = 0
) -> NDArray[np.uint32]:
    """The colour of every pair of densities.

    Args:
        centre: Stain directions, strengths and white of the laboratory.
        haematoxylin_factor: Factor of this slide's staining.
        eosin_factor: The same for eosin.
        darker: Grey levels that the glass is darker by (shading of the lamp).

    Returns:
        uint32 (65536,), index ``h · 256 + e``; the bytes of a value are R, G, B, 255.
    """
    steps = np.arange(256) / 255.0 * OD_SCALE
    h = _unit(centre.haematoxylin) * centre.haematoxylin_strength * haematoxylin_factor
    e = _unit(centre.eosin) * centre.eosin_strength * eosin_factor
    density = steps[:, None, None] * h + steps[None, :, None] * e
    rgb = (np.array(centre.white) - darker) * 10.0**-density
    table = np.full((256, 256, 4), 255, dtype=np.uint8)
    table[..., :3] = np.clip(np.rint(rgb), 0, 255)
    return np.ascontiguousarray(table).view(np.uint32).reshape(-1)


def to_rgb(
    table: NDArray[np.uint32], haematoxylin: NDArray[np.uint8], eosin: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Colours two density planes (h, w): uint8 (h, w, 4), the fourth channel 255."""
    index = np.left_shift(haematoxylin, 8, dtype=np.uint16)
    index |= eosin
    return table.take(index).view(np.uint8).reshape(*haematoxylin.shape, 4)


def _unit(vector: tuple[float, float, float]) -> NDArray[np.float64]:
    array = np.array(vector)
    unit: NDArray[np.float64] = array / np.linalg.norm(array)
    return unit
