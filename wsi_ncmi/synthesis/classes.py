"""The four CAMELYON-17 slide classes and the lesion sizes that define them.

TNM: isolated tumour cells (itc) are at most 0.2 mm across, micro-metastases at most 2 mm, macro-metastases
larger. Synthetic slides hold about 2 mm² of tissue instead of 100–300 mm², so every length of a lesion is
scaled down by one constant, ``LESION_SCALE``: itc ≤ 0.1 mm, micro ≤ 1 mm, macro > 1 mm. The length of a
lesion is the diameter of the circle that has its area, which makes the class a function of the area alone:
itc touches 1–4 tiles of 128 µm (never more than half a tile's area), micro covers 2–17 % of the tissue, macro
30–65 %.
"""

from __future__ import annotations

import math

__all__ = [
    "CLASSES",
    "CLASS_SHARES",
    "DRAWN_DIAMETERS_MM",
    "ITC_MAX_MM",
    "LESION_SCALE",
    "MICRO_MAX_MM",
    "circle_area_mm2",
    "label_of_lesion_area",
]

CLASSES = ("negative", "itc", "micro", "macro")
#: Shares of the 500 CAMELYON-17 training slides, rounded.
CLASS_SHARES = {"negative": 0.64, "itc": 0.07, "micro": 0.12, "macro": 0.17}
#: Real length / synthetic length of every lesion.
LESION_SCALE = 2.0
ITC_MAX_MM = 0.2 / LESION_SCALE
MICRO_MAX_MM = 2.0 / LESION_SCALE
#: Equivalent diameters that are drawn (low, high): clear of the thresholds, so that no slide is a matter of
#: a pixel.
DRAWN_DIAMETERS_MM = {"itc": (0.076, 0.097), "micro": (0.24, 0.62), "macro": (1.04, 1.2)}


def circle_area_mm2(diameter_mm: float) -> float:
    """Area in mm² of the circle with this diameter in mm."""
    return math.pi / 4 * diameter_mm**2


def label_of_lesion_area(area_mm2: float) -> str:
    """The class of a slide whose tumour covers ``area_mm2`` mm² in all.

    Args:
        area_mm2: Total tumour area in mm² of the synthetic slide (not scaled back up).

    Returns:
        One of ``CLASSES``.
    """
    if area_mm2 <= 0:
        return "negative"
    if area_mm2 <= circle_area_mm2(ITC_MAX_MM):
        return "itc"
    return "micro" if area_mm2 <= circle_area_mm2(MICRO_MAX_MM) else "macro"
