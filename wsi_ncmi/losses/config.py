"""Options of the losses; free of torch, so that the configuration can be read without it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from wsi_ncmi.core.config import configclass

__all__ = ["LossConfig", "loss_config"]

_Positive = Annotated[float, Field(gt=0)]
_Fraction = Annotated[float, Field(ge=0, lt=1)]
_NotNegative = Annotated[float, Field(ge=0)]


@configclass
class LossConfig:
    """Which loss, and its settings. A setting of another loss than ``name`` has no effect.

    Attributes:
        name: A name of ``wsi_ncmi.losses.list_losses()``.
        preset: NCMI: the form to start from (``wsi_ncmi.losses.PRESETS``).
        symbols: NCMI: number of output symbols m; None takes the preset's.
        temperature: NCMI: T that divides the symbol scores; None takes the preset's.
        symbol_map: NCMI: ``sigmax`` or ``softmax``; None takes the preset's.
        code_words: NCMI: how the class centroids arise; None takes the preset's.
        code_scale: NCMI: size of the scores of the code words; None takes the preset's.
        means_update: NCMI: how class means follow the network; None takes the preset's.
        means_momentum: NCMI: weight of the past in running class means; None takes the preset's.
        bank_size: NCMI: samples in the bank of class means; None takes the preset's.
        ratio: NCMI: how concentration is normalised by separation; None takes the preset's.
        power: NCMI: q of the generalised logarithm, −1 = the ratio … 1 = bounded; None takes the preset's.
        separation: NCMI: form of Γ; None takes the preset's.
        direction: NCMI: which KL the log form uses; None takes the preset's.
        tau: NCMI: temperature of the log form; None takes the preset's.
        centring: NCMI: subtract the running mean of the symbol scores; None takes the preset's.
        normalise: NCMI: ``none`` or ``l2``; None takes the preset's.
        decision_means: NCMI: predict from class means of each epoch; None takes the preset's.
        balance: NCMI: exponent of the class weights in the concentration; None takes the preset's.
        prior_shift: NCMI: multiple of the log prior in the log form's training scores; None as above.
        decision_balance: NCMI: exponent of the class weights in the decision's fit; None takes the preset's.
        ridge: NCMI: regularisation of the decision's fit, in pseudo-samples.
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
    code_scale: _Positive | None = None
    means_update: Literal["epoch", "running", "bank"] | None = None
    means_momentum: _Fraction | None = None
    bank_size: Annotated[int, Field(ge=1)] | None = None
    ratio: Literal["sample", "batch", "log"] | None = None
    power: Annotated[float, Field(ge=-1, le=1)] | None = None
    separation: Literal["centroid", "pairwise"] | None = None
    direction: Literal["sample_to_code", "code_to_sample"] | None = None
    tau: _Positive | None = None
    centring: bool | None = None
    normalise: Literal["none", "l2"] | None = None
    decision_means: bool | None = None
    balance: Annotated[float, Field(ge=0, le=1)] | None = None
    prior_shift: _NotNegative | None = None
    decision_balance: Annotated[float, Field(ge=0, le=1)] | None = None
    ridge: _Positive = 20.0
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


def loss_config(name: str = "ncmi", **settings: Any) -> LossConfig:
    """The config of the loss of that name; a setting that isn't given takes its default."""
    return LossConfig(name=name, **settings)
