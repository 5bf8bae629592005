"""The losses by name: the settings of each, its paper, and the criterion that they build; free of torch.

A new loss is a module with its criterion and one class here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, cast, dataclass_transform

from wsi_ncmi.core.arguments import described
from wsi_ncmi.core.config import Named, config_from, configclass
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import ncmi_form as form

if TYPE_CHECKING:
    from wsi_ncmi.losses.base import Criterion

__all__ = ["AnyLoss", "LossConfig", "build_loss", "list_losses", "loss_config", "register_loss"]

_L = TypeVar("_L", bound="LossConfig")

_LOSSES: dict[str, type[LossConfig]] = {}


@configclass
class LossConfig:
    """A loss and its settings; each loss has a class of its own.

    Attributes:
        name: Name of the loss (``wsi-ncmi losses``).
    """

    name: str

    criterion: ClassVar[str]
    """The :class:`~wsi_ncmi.losses.base.Criterion` that the settings build, as ``module:class``."""
    paper: ClassVar[str]
    summary: ClassVar[str]
    formula: ClassVar[str]
    arguments: ClassVar[Mapping[str, str]] = {}
    """Setting → argument of the criterion, where their names differ."""
    class_counts: ClassVar[Literal["unused", "optional", "required"]] = "unused"
    """Whether the criterion takes the number of training samples of each class."""
    options: ClassVar[tuple[str, ...]] = ()
    """Arguments of the criterion for loops of one's own, which aren't settings of a training."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
def register_loss(cls: type[_L]) -> type[_L]:
    """Makes a config class of a loss and lists it under its name."""
    made = configclass(cls)
    _LOSSES[made.name] = made
    return made


@register_loss
class NCMIConfig(LossConfig):
    """NCMI; a setting that is None takes the preset's value.

    Attributes:
        preset: The form to start from (``wsi_ncmi.losses.PRESETS``).
        symbols: Number of output symbols m.
        temperature: T that divides the symbol scores.
        symbol_map: ``sigmax`` or ``softmax``.
        code_words: How the class centroids arise.
        code_scale: Size of the scores of the code words.
        means_update: How class means follow the network.
        means_momentum: Weight of the past in running class means.
        bank_size: Samples in the bank of class means.
        ratio: How concentration is normalised by separation.
        power: q of the generalised logarithm, −1 = the ratio … 1 = bounded.
        separation: Form of Γ.
        direction: Which KL the log form uses.
        tau: Temperature of the log form.
        centring: Subtract the running mean of the symbol scores.
        centring_momentum: Weight of the past in that mean.
        normalise: ``none`` or ``l2``.
        decision_means: Predict from class means of each epoch.
        balance: Exponent of the class weights in the concentration.
        prior_shift: Multiple of the log prior in the log form's training scores.
        decision_balance: Exponent of the class weights in the decision's fit.
        ridge: Regularisation of the decision's fit, in pseudo-samples.
        class_mean_decision: Let the class means of the embeddings correct the decision.
        plain_when_far: Decide slides far from all of the training without class weights and class means.
    """

    criterion = "wsi_ncmi.losses.ncmi:NCMILoss"
    paper = "arXiv 2601.02543 (2026)"
    summary = "concentration of each class's outputs (conditional mutual information) against separation"
    formula = "(1 − (1 + r)^−q)/q,  r = KL(p‖s_y) / mean_{j≠y} KL(s_j‖p)  or  Σ_{j≠y} exp((d_y − d_j)/τ)"
    class_counts = "optional"
    options = ("reduction", "weight")

    name: Literal["ncmi"] = "ncmi"
    preset: form.Preset = "default"
    symbols: form.Symbols | None = None
    temperature: form.Positive | None = None
    symbol_map: form.SymbolMap | None = None
    code_words: form.Centroids | None = None
    code_scale: form.Positive | None = None
    means_update: form.MeansUpdate | None = None
    means_momentum: form.Fraction | None = None
    bank_size: form.Count | None = None
    ratio: form.Ratio | None = None
    power: form.Power | None = None
    separation: form.Separation | None = None
    direction: form.Direction | None = None
    tau: form.Positive | None = None
    centring: bool | None = None
    centring_momentum: form.Share | None = None
    normalise: form.Normalisation | None = None
    decision_means: bool | None = None
    balance: form.Share | None = None
    prior_shift: form.NotNegative | None = None
    decision_balance: form.Share | None = None
    ridge: form.Positive = 20.0
    class_mean_decision: bool | None = None
    plain_when_far: bool | None = None


@register_loss
class CrossEntropyConfig(LossConfig):
    """Cross-entropy."""

    criterion = "wsi_ncmi.losses.cross_entropy:CrossEntropy"
    paper = "Good 1952 (logarithmic score)"
    summary = "cross-entropy of the softmax"
    formula = "−log p_y"

    name: Literal["ce"] = "ce"


@register_loss
class WeightedCrossEntropyConfig(LossConfig):
    """Class-weighted cross-entropy."""

    criterion = "wsi_ncmi.losses.cross_entropy:WeightedCrossEntropy"
    paper = "King & Zeng 2001"
    summary = "cross-entropy weighted by inverse class frequency"
    formula = "−w_y log p_y,  w_c = N/(C·N_c)"
    class_counts = "required"

    name: Literal["weighted_ce"] = "weighted_ce"


@register_loss
class FocalConfig(LossConfig):
    """Focal loss.

    Attributes:
        focal_gamma: Focusing exponent γ.
    """

    criterion = "wsi_ncmi.losses.cross_entropy:FocalLoss"
    paper = "Lin et al. 2017, arXiv 1708.02002"
    summary = "cross-entropy in which easy samples count less"
    formula = "−(1 − p_y)^γ log p_y"
    arguments: ClassVar[Mapping[str, str]] = {"focal_gamma": "gamma"}

    name: Literal["focal"] = "focal"
    focal_gamma: form.NotNegative = 2.0


@register_loss
class ClassBalancedFocalConfig(LossConfig):
    """Class-balanced focal loss.

    Attributes:
        cb_gamma: Focusing exponent γ.
        cb_beta: β of the effective number of samples.
    """

    criterion = "wsi_ncmi.losses.long_tail:ClassBalancedFocalLoss"
    paper = "Cui et al. 2019, arXiv 1901.05555"
    summary = "focal loss weighted by each class's effective number of samples"
    formula = "−w_y (1 − p_y)^γ log p_y,  w_c ∝ (1 − β)/(1 − β^N_c)"
    arguments: ClassVar[Mapping[str, str]] = {"cb_gamma": "gamma", "cb_beta": "beta"}
    class_counts = "required"

    name: Literal["cb_focal"] = "cb_focal"
    cb_gamma: form.NotNegative = 1.0
    cb_beta: form.Fraction = 0.999


@register_loss
class LogitAdjustedConfig(LossConfig):
    """Logit-adjusted cross-entropy.

    Attributes:
        adjustment: Multiple τ of the log prior that is added in training.
    """

    criterion = "wsi_ncmi.losses.long_tail:LogitAdjustedLoss"
    paper = "Menon et al. 2021, arXiv 2007.07314"
    summary = "cross-entropy with the log prior added in training; 1 is the balanced softmax"
    formula = "−log softmax(f + τ log π)_y"
    arguments: ClassVar[Mapping[str, str]] = {"adjustment": "tau"}
    class_counts = "required"

    name: Literal["logit_adjusted"] = "logit_adjusted"
    adjustment: form.NotNegative = 1.0


@register_loss
class LDAMConfig(LossConfig):
    """LDAM-DRW.

    Attributes:
        ldam_margin: Margin of the rarest class, in cosines.
        ldam_scale: Scale s of the cosines.
        ldam_deferral: Share of the epochs before the class weights set in; 1 never weights.
        ldam_beta: β of the class weights.
    """

    criterion = "wsi_ncmi.losses.long_tail:LDAMLoss"
    paper = "Cao et al. 2019, arXiv 1906.07413"
    summary = "margins that grow with rarity, class weights in the last epochs (LDAM-DRW)"
    formula = "−w_y log softmax(s (cos − Δ_y 1{j = y}))_y,  Δ_c ∝ N_c^(−1/4)"
    arguments: ClassVar[Mapping[str, str]] = {
        "ldam_margin": "margin",
        "ldam_scale": "scale",
        "ldam_deferral": "deferral",
        "ldam_beta": "beta",
    }
    class_counts = "required"

    name: Literal["ldam"] = "ldam"
    ldam_margin: form.NotNegative = 0.5
    ldam_scale: form.Positive = 30.0
    ldam_deferral: form.Share = 0.8
    ldam_beta: form.Fraction = 0.9999


@register_loss
class LabelSmoothingConfig(LossConfig):
    """Label smoothing.

    Attributes:
        label_smoothing: Mass ε spread over all classes.
    """

    criterion = "wsi_ncmi.losses.cross_entropy:LabelSmoothing"
    paper = "Szegedy et al. 2016, arXiv 1512.00567"
    summary = "cross-entropy against labels mixed with the uniform distribution"
    formula = "−Σ_j ((1 − ε)·1{j = y} + ε/C) log p_j"
    arguments: ClassVar[Mapping[str, str]] = {"label_smoothing": "smoothing"}

    name: Literal["label_smoothing"] = "label_smoothing"
    label_smoothing: form.Fraction = 0.1


@register_loss
class Poly1Config(LossConfig):
    """Poly-1.

    Attributes:
        poly_epsilon: Weight ε₁ of the first polynomial term.
    """

    criterion = "wsi_ncmi.losses.cross_entropy:Poly1Loss"
    paper = "Leng et al. 2022, arXiv 2204.12511"
    summary = "cross-entropy plus a multiple of 1 − p"
    formula = "−log p_y + ε₁ (1 − p_y)"
    arguments: ClassVar[Mapping[str, str]] = {"poly_epsilon": "epsilon"}

    name: Literal["poly1"] = "poly1"
    poly_epsilon: float = 1.0


@register_loss
class SquareConfig(LossConfig):
    """Square loss.

    Attributes:
        square_scale: Weight k of the true class's term.
        square_target: Target value M of the true class's logit.
    """

    criterion = "wsi_ncmi.losses.square:SquareLoss"
    paper = "Hui & Belkin 2021, arXiv 2006.07322"
    summary = "squared distance of the scores from the one-hot label"
    formula = "1/C · (k (f_y − M)² + Σ_{j≠y} f_j²)"
    arguments: ClassVar[Mapping[str, str]] = {"square_scale": "scale", "square_target": "target"}

    name: Literal["square"] = "square"
    square_scale: form.Positive = 1.0
    square_target: form.Positive = 1.0


@register_loss
class SupervisedContrastiveConfig(LossConfig):
    """Supervised contrastive loss.

    Attributes:
        contrastive_temperature: τ.
        contrastive_weight: Weight of the contrastive term beside CE.
    """

    criterion = "wsi_ncmi.losses.supervised_contrastive:SupervisedContrastive"
    paper = "Khosla et al. 2020, arXiv 2004.11362"
    summary = "cross-entropy plus contrast of same-class with other slides"
    formula = "CE + λ · mean_{p∈P(i)} −log(exp(f_i·f_p/τ) / Σ_{a≠i} exp(f_i·f_a/τ))"
    arguments: ClassVar[Mapping[str, str]] = {
        "contrastive_temperature": "temperature",
        "contrastive_weight": "weight",
    }

    name: Literal["supcon"] = "supcon"
    contrastive_temperature: form.Positive = 0.1
    contrastive_weight: form.NotNegative = 1.0


@register_loss
class OrthogonalProjectionConfig(LossConfig):
    """Orthogonal projection loss.

    Attributes:
        opl_weight: Weight λ of the orthogonality term beside CE.
        opl_gamma: Weight γ of the between-class term.
    """

    criterion = "wsi_ncmi.losses.orthogonal_projection:OrthogonalProjectionLoss"
    paper = "Ranasinghe et al. 2021, arXiv 2103.14021"
    summary = "cross-entropy plus orthogonality of the classes' embeddings"
    formula = "CE + λ · ((1 − s) + γ |d|),  s, d mean cosines within and between classes"
    arguments: ClassVar[Mapping[str, str]] = {"opl_weight": "weight", "opl_gamma": "gamma"}

    name: Literal["opl"] = "opl"
    opl_weight: form.NotNegative = 1.0
    opl_gamma: form.NotNegative = 0.5


@register_loss
class CMIConstrainedConfig(LossConfig):
    """CMIC-DL.

    Attributes:
        cmi_weight: λ, the weight of the concentration.
        gamma_weight: β, the weight of the separation.
    """

    criterion = "wsi_ncmi.losses.cmi_constrained:CMIConstrained"
    paper = "Yang et al. 2023, arXiv 2309.09123"
    summary = "cross-entropy plus concentration minus separation (CMIC-DL)"
    formula = "CE + λ · CMI − β · Γ"

    name: Literal["cmic"] = "cmic"
    cmi_weight: form.NotNegative = 0.5
    gamma_weight: form.NotNegative = 0.1


_WRITTEN_BY_0_1 = """
name preset symbols temperature symbol_map code_words code_scale means_update means_momentum bank_size ratio
power separation direction tau centring normalise decision_means balance prior_shift decision_balance ridge
focal_gamma label_smoothing poly_epsilon square_scale square_target contrastive_temperature
contrastive_weight opl_weight opl_gamma cmi_weight gamma_weight
"""
AnyLoss = Annotated[LossConfig, Named("loss", lambda: _LOSSES, "ncmi", frozenset(_WRITTEN_BY_0_1.split()))]
"""Type of a field that holds a loss: its name, its settings with the name among them, or a config."""


def list_losses() -> tuple[type[LossConfig], ...]:
    """The config classes of all losses: NCMI first, then its rivals."""
    return tuple(_LOSSES.values())


def loss_config(name: str = "ncmi", **settings: Any) -> LossConfig:
    """The config of the loss of that name; a setting that isn't given takes its default.

    Raises:
        InputError: There is no such loss or setting, or a value is out of its range.
    """
    return config_from(AnyLoss, {"name": name, **settings}, "the loss")


def build_loss(
    config: LossConfig | str,
    num_classes: int,
    in_features: int | None = None,
    class_counts: Sequence[int] | None = None,
    **settings: Any,
) -> Criterion:
    """Makes the criterion of a loss.

    Args:
        config: Its config, or its name.
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None when the inputs are logits.
        class_counts: Training samples of each class (C,); only some losses need them.
        **settings: Settings that differ from those of ``config``, or from the defaults; for NCMI also
            ``reduction`` and ``weight`` as ``nn.CrossEntropyLoss`` has them.

    Returns:
        The criterion, on the CPU, in float32: ``criterion(z, y)`` is the loss, ``criterion.predict_proba(z)``
        the probabilities.

    Raises:
        InputError: The name or a setting is wrong, or the loss needs class counts and none are given.

    Example:
        >>> build_loss("focal", num_classes=3, focal_gamma=1.5).gamma
        1.5
    """
    if not isinstance(config, str | LossConfig):
        raise InputError(f"A loss is given by its name or its config, got {described(config)}.")
    kind = _LOSSES.get(config) if isinstance(config, str) else type(config)
    options = {key: settings.pop(key) for key in (kind.options if kind else ()) if key in settings}
    if isinstance(config, str):
        config = loss_config(config, **settings)
    elif settings:
        config = loss_config(**{**asdict(config), **settings})
    values = asdict(config)
    arguments = {config.arguments.get(key, key): value for key, value in values.items() if key != "name"}
    arguments |= options
    if config.class_counts == "required" and class_counts is None:
        raise InputError(
            f"The loss '{config.name}' needs the number of training samples of each class; pass class_counts."
        )
    if config.class_counts != "unused":
        arguments["class_counts"] = class_counts
    module, _, name = config.criterion.partition(":")
    make = cast("Callable[..., Criterion]", getattr(importlib.import_module(module), name))
    return make(num_classes, in_features, **arguments)
