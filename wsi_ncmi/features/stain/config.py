"""Configuration of stain normalisation."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsi_ncmi.core.config import configclass, contradiction


@configclass
class StainConfig:
    """Stain normalisation of tiles before encoding.

    Attributes:
        method: ``none``; ``macenko`` (stain vectors and strengths, Macenko et al. 2009); ``reinhard`` (mean
            and spread of each axis of lαβ, Reinhard et al. 2001).
        reference: Image file (PNG, JPEG, TIFF) whose colours are the target; without one the published target
            of the method, see ``stain_target``.
        sample_tiles: Tiles of a slide that its own colours are measured on, spread evenly over the slide.
    """

    method: Literal["none", "macenko", "reinhard"] = "none"
    reference: Path | None = None
    sample_tiles: Annotated[int, Field(ge=1, le=4096)] = 64

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        if self.method == "none" and self.reference is not None:
            raise contradiction("nothing is normalised; take macenko or reinhard", "reference", "method")
        return self
