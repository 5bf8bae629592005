"""What may be unlike the training about a slide, each with its numbers in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Flag", "SlideMetadata"]


@dataclass(frozen=True)
class Flag:
    """One finding.

    Attributes:
        name: ``few_tiles``, ``resolution``, ``stain``, ``features`` or ``foreign_tiles``.
        words: One half sentence with the number and the bound.
        score: The number as a multiple of the bound that it crosses, above 1.
    """

    name: str
    words: str
    score: float


@dataclass(frozen=True)
class SlideMetadata:
    """What is looked at besides the features.

    Attributes:
        mpp: µm per level-0 pixel; None where unknown.
        colour: Measures of the tissue's colour (see ``wsi_ncmi.features.stain.density.tissue_colour``); empty
            where it was not measured.
    """

    mpp: float | None = None
    colour: Mapping[str, float] = field(default_factory=dict)
