"""Configs of tissue segmentation, artefact screening and annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from wsi_ncmi.core.config import configclass, contradiction, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


TISSUE_METHODS = ("hed", "otsu", "threshold")
"""Methods beside ``model:FILE``."""


def _known_method(name: str) -> str:
    kind, _, file = name.partition(":")
    if name not in TISSUE_METHODS and not (kind == "model" and file):
        raise ValueError(
            f"there is no tissue method {name!r}; {nearest(name, [*TISSUE_METHODS, 'model:FILE'])}"
        )
    return name


@configclass
class TissueConfig:
    """Options of telling tissue from glass.

    Attributes:
        method: ``hed`` = optical density with the colour of H&E (ink is not tissue); ``otsu`` = Otsu's
            threshold on saturation; ``threshold`` = a fixed threshold on saturation, both relative to the
            slide's glass; ``model:FILE`` = a network (ONNX or TorchScript) with a JSON of the same name.
        working_mpp: Resolution at which the mask is made, µm per pixel.
        threshold: Saturation (0 to 1) of the ``threshold`` method.
        min_density: Least optical density of the ``hed`` method, whatever Otsu says: below it is glass.
        min_object_um2: Smaller pieces of tissue are specks.
        min_hole_um2: Smaller holes belong to the tissue.
        smooth_um: Gaussian sigma applied before the threshold.
        model_sha256: Hash that the model and its JSON must have; the job fills it in.
    """

    method: Annotated[str, AfterValidator(_known_method)] = "hed"
    working_mpp: Annotated[float, Field(ge=0.5, le=64)] = 8.0
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.07
    min_density: Annotated[float, Field(gt=0, lt=1)] = 0.06
    min_object_um2: Annotated[float, Field(ge=0)] = 20_000.0
    min_hole_um2: Annotated[float, Field(ge=0)] = 10_000.0
    smooth_um: Annotated[float, Field(ge=0, le=200)] = 8.0
    model_sha256: str | None = None

    methods_of: ClassVar[Mapping[str, str]] = {
        "threshold": "threshold", "min_density": "hed", "model_sha256": "model",
    }  # fmt: skip
    """Setting → the only method that has it."""

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        for key, method in self.methods_of.items():
            if self.method.partition(":")[0] != method and getattr(self, key) != getattr(type(self), key):
                raise contradiction(f"only the method {method!r} has it; leave it out", key, "method")
        return self

    @property
    def model_file(self) -> Path | None:
        """File of the mask model; None of the other methods."""
        kind, _, file = self.method.partition(":")
        return Path(file) if kind == "model" else None

    def to_json(self) -> dict[str, Any]:
        """The settings as outputs hold them: a model by its name and hash, never by its path."""
        values = asdict(self)
        if self.model_file is None:
            del values["model_sha256"]
        else:
            values["method"] = f"model:{self.model_file.name}"
        return values


ARTIFACT_KINDS = ("pen", "fold", "border", "blur")
"""Names of a tile's artefact scores, in their order."""

DETECTORS: Literal[4, 5] = 5
"""Version of the detectors: raised when they score tiles otherwise than before."""

_Positive = Annotated[float, Field(gt=0)]


@configclass
class MaskModelConfig:
    """The JSON beside a mask model: how it takes its input, and what its classes are.

    Attributes:
        mpp: Resolution of its input, µm per pixel.
        tile_px: Edge of its input in pixels.
        classes: Of each channel of its output, in order: ``background``, ``tissue``, ``pen``, ``fold``,
            ``border`` or ``blur``; several channels may stand for the same.
        overlap_px: Pixels that neighbouring inputs share, half of them on either side; None = an eighth.
        mean: Of each channel of RGB in 0 … 1; the default is ImageNet's.
        std: Standard deviation, same.
        jpeg_quality: Quality of the JPEG compression that its training images went through; None = none.
    """

    mpp: Annotated[float, Field(ge=0.1, le=64)]
    tile_px: Annotated[int, Field(ge=16, le=4096)]
    classes: Annotated[
        tuple[Literal["background", "tissue", "pen", "fold", "border", "blur"], ...], Field(min_length=2)
    ]
    overlap_px: Annotated[int, Field(ge=0)] | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[_Positive, _Positive, _Positive] = (0.229, 0.224, 0.225)
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "tissue" not in self.classes:
            raise ValueError("none of its classes is 'tissue'")
        if self.core_px < self.tile_px / 2:
            raise ValueError(f"an overlap of {self.overlap_px} px leaves too little of {self.tile_px} px")
        return self

    @property
    def core_px(self) -> int:
        """Edge of the part of an input that its neighbours don't show."""
        return self.tile_px - (self.tile_px // 8 if self.overlap_px is None else self.overlap_px)


_Share = Annotated[float, Field(gt=0, le=1)]


@configclass
class ArtifactConfig:
    """Options of artefact screening.

    Every tile's scores are stored whatever the rule; the rule says whether a bad tile is left out. A tile is
    bad when one of its scores reaches the threshold of its kind.

    Attributes:
        rule: ``keep`` stores the scores only, ``drop`` leaves bad tiles out.
        pen: Share of the tile under pen ink.
        fold: Share of the tile on a tissue fold.
        border: Share of the tile on a black or grey border of the scan.
        blur: Share of the tile's detail that is out of focus.
        detectors: Version of the detectors; 4 goes on with an output of wsi-ncmi 0.1 that dropped tiles.
    """

    rule: Literal["keep", "drop"] = "keep"
    pen: _Share = 0.1
    fold: _Share = 0.1
    border: _Share = 0.1
    blur: _Share = 0.33
    detectors: Literal[4, 5] = DETECTORS

    def bad(self, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Marks the tiles that show an artefact, whatever the rule.

        Args:
            scores: Float (N, 4), columns as ``ARTIFACT_KINDS``; a score that isn't a number isn't bad.

        Returns:
            bool (N,).
        """
        import numpy as np  # the help of a verb, which reads this class, does without

        if scores.ndim != 2 or scores.shape[1] != len(ARTIFACT_KINDS):
            raise ValueError(f"Scores must be (N, {len(ARTIFACT_KINDS)}), not {scores.shape}.")
        # Stored as float16: a score at its limit must not fall below it by rounding.
        limits = np.array([self.pen, self.fold, self.border, self.blur]).astype(np.float16)
        with np.errstate(invalid="ignore"):
            reached: NDArray[np.bool_] = np.any(scores.astype(np.float16) >= limits, axis=1)
        return reached

    def counts(self, scores: NDArray[np.floating]) -> dict[str, int]:
        """Kind → tiles that show it, whatever the rule; a tile may show several.

        Args:
            scores: As for :meth:`bad`.
        """
        import numpy as np

        only = np.eye(len(ARTIFACT_KINDS), dtype=scores.dtype)
        return {
            kind: int(self.bad(scores * row).sum()) for kind, row in zip(ARTIFACT_KINDS, only, strict=True)
        }


@configclass
class AnnotationConfig:
    """Class names by what they do; case and blanks around a name don't count, other classes do nothing.

    They act in this order: ``tissue``, ``include``, ``add``, ``exclude``. The outline that we write has the
    class ``tissue``, so an edited one replaces the automatic mask; outlines without a class do the same, as
    in TRIDENT. A lesion (``Tumor``, CAMELYON's ``_0``, ``_1``, ``_2``, ``metastases``) changes nothing, nor
    do the outlines of artefacts.

    Attributes:
        tissue: Where there is such an area, tissue is what lies in these areas and nowhere else.
        include: Where there is such an area, only tissue inside these areas counts.
        add: These areas are tissue too.
        exclude: Nothing in these areas is tissue.
    """

    tissue: tuple[str, ...] = ("tissue", "")
    include: tuple[str, ...] = ("include", "region*", "roi", "region of interest")
    add: tuple[str, ...] = ("add",)
    exclude: tuple[str, ...] = ("exclude", "ignore*", "ignore", "artifact", "artefact")

    def role_of(self, name: str) -> str:
        """``tissue``, ``include``, ``add`` or ``exclude``, or ``other``."""
        plain = name.strip().casefold()
        for role in ("tissue", "include", "add", "exclude"):
            if plain in {known.strip().casefold() for known in getattr(self, role)}:
                return role
        return "other"
