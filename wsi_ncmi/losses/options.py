"""Options of the losses; free of torch, so that the configuration can be read without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wsi_ncmi.options import options

__all__ = ["LossOptions"]

_Positive = Annotated[float, Field(gt=0)]
_Fraction = Annotated[float, Field(ge=0, lt=1)]
_NotNegative = Annotated[float, Field(ge=0)]


@options
class LossOptions:
    """Which loss, and its settings. A setting of another loss than ``name`` has no effect.

    Attributes:
        name: A name of ``wsi_ncmi.losses.list_losses()``.
        preset: NCMI: the form to start from (``wsi_ncmi.losses.PRESETS``).
        symbols: NCMI: number of output symbols m; None takes the preset's.
        temperature: NCMI: T that divides the symbol scores; None takes the preset's.
        symbol_map: NCMI: ``sigmax`` or ``softmax``; None takes the preset's.
        code_words: NCMI: how the class centroids arise; None takes the preset's.
        ratio: NCMI: how concentration is normalised by separation; None takes the preset's.
        separation: NCMI: form of Γ; None takes the preset's.
        direction: NCMI: which KL the log form uses; None takes the preset's.
        tau: NCMI: temperature of the log form; None takes the preset's.
        centring: NCMI: subtract the running mean of the symbol scores; None takes the preset's.
        normalise: NCMI: ``none`` or ``l2``; None takes the preset's.
        focal_gamma: Focal loss: focusing exponent γ.
        label_smoothing: Label smoothing: mass ε spread over all classes.
        poly_epsilon: Poly-1: weight ε₁ of the first polynomial term.
        square_scale: Square loss: weight k of the true class's term.
        square_target: Square loss: target value M of the true class's logit.
        contrastive_temperature: Supervised contrastive: τ.
        contrastive_weight: Supervised contrastive: weight of the contrastive term beside CE.
        opl_weight: OPL: weight λ of the orthogonality term beside CE.
        opl_gamma: OPL: weight γ of the between-class term.
        cmi_weight: CMIC-DL: λ, the weight of the concentration.
        gamma_weight: CMIC-DL: β, the weight of the separation.
    """

    name: str = "ncmi"
    preset: str = "default"
    symbols: Annotated[int, Field(ge=2)] | None = None
    temperature: _Positive | None = None
    symbol_map: Literal["sigmax", "softmax"] | None = None
    code_words: Literal["orthogonal", "simplex", "identity", "learned", "means"] | None = None
    ratio: Literal["sample", "batch", "log"] | None = None
    separation: Literal["centroid", "pairwise"] | None = None
    direction: Literal["sample_to_code", "code_to_sample"] | None = None
    tau: _Positive | None = None
    centring: bool | None = None
    normalise: Literal["none", "l2"] | None = None
    focal_gamma: _NotNegative = 2.0
    label_smoothing: _Fraction = 0.1
    poly_epsilon: float = 1.0
    square_scale: _Positive = 1.0
    square_target: _Positive = 1.0
    contrastive_temperature: _Positive = 0.1
    contrastive_weight: _NotNegative = 1.0
    opl_weight: _NotNegative = 1.0
    opl_gamma: _NotNegative = 0.5
    cmi_weight: _NotNegative = 0.5
    gamma_weight: _NotNegative = 0.1
