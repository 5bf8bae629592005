"""Options of tissue segmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wsi_ncmi.core.config import configclass

__all__ = ["TissueConfig"]


@configclass
class TissueConfig:
    """How tissue is told from glass.

    Attributes:
        method: ``hed`` = optical density with the colour of H&E (ink is not tissue); ``otsu`` = Otsu's
            threshold on saturation; ``threshold`` = a fixed threshold on saturation. Both are relative to
            the slide's glass.
        working_mpp: Resolution at which the mask is made, µm per pixel.
        threshold: Saturation (0 to 1) of the ``threshold`` method.
        min_density: Least optical density of the ``hed`` method, whatever Otsu says: below it is glass.
        min_object_um2: Smaller pieces of tissue are specks.
        min_hole_um2: Smaller holes belong to the tissue.
        smooth_um: Gaussian sigma applied before the threshold.
    """

    method: Literal["hed", "otsu", "threshold"] = "hed"
    working_mpp: Annotated[float, Field(ge=0.5, le=64)] = 8.0
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.07
    min_density: Annotated[float, Field(gt=0, lt=1)] = 0.06
    min_object_um2: Annotated[float, Field(ge=0)] = 20_000.0
    min_hole_um2: Annotated[float, Field(ge=0)] = 10_000.0
    smooth_um: Annotated[float, Field(ge=0, le=200)] = 8.0
