"""The forms of the NCMI loss and the presets among them; free of torch."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from wsi_ncmi.core.config import config_from, configclass
from wsi_ncmi.core.errors import InputError

__all__ = ["PRESETS", "Centroids", "NCMIForm", "resolve_form"]

Preset = Literal["default", "long_tail", "log", "log_reverse", "ratio", "paper"]
SymbolMap = Literal["sigmax", "softmax"]
Centroids = Literal["orthogonal", "simplex", "identity", "learned", "means"]
MeansUpdate = Literal["epoch", "running", "bank"]
Ratio = Literal["sample", "batch", "log"]
Separation = Literal["centroid", "pairwise"]
Direction = Literal["sample_to_code", "code_to_sample"]
Normalisation = Literal["none", "l2"]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Power = Annotated[float, Field(ge=-1, le=1)]
Symbols = Annotated[int, Field(ge=2)]
Count = Annotated[int, Field(ge=1)]


@configclass
class NCMIForm:
    """Every choice that makes up a form of the loss.

    Attributes:
        symbols: Symbols m that the embedding is projected to; None takes the embedding as the scores.
        temperature: T, divides the scores.
        symbol_map: From scores to probabilities, p ∝ σ(u) (``sigmax``) or p ∝ exp(u) (``softmax``).
        code_words: ``orthogonal``, ``simplex``, ``identity`` (fixed), ``learned`` (by gradient), ``means``
            (closed-form class means after each epoch).
        code_scale: Size of the scores of the code words.
        means_update: How class means follow the network: ``epoch`` (exact, by a pass after each epoch),
            ``running`` (moving average of the batches) or ``bank`` (mean over the last samples seen).
        means_momentum: Weight of the past in the running class means.
        bank_size: Samples in the bank.
        ratio: ``sample``: mean of r_i = CMI_i / Γ_i; ``batch``: r = mean CMI / mean Γ; ``log``: r_i is the
            soft ratio Σ_{j≠y} exp((KL_y − KL_j)/τ), whose log(1 + r) is KL_y/τ + log Σ_j exp(−KL_j/τ).
        power: q of the generalised logarithm (1 − (1 + r)^−q)/q that is minimised: −1 is the ratio itself, 0
            is log(1 + r), 1 is the bounded share r/(1 + r). None: −1 for the ratios and 0 for ``log``.
        separation: Γ of the ratios, ``centroid`` or ``pairwise``.
        own_term_in_mean: Γ's centroid form divides its sum over j ≠ y by C, not by C − 1 (public code).
        direction: The divergence of the log form and of the decision, KL(p ‖ s) or KL(s ‖ p).
        tau: Temperature of the log form; None: 2/m, at which a symbol weighs as much in the class scores
            whatever the number of symbols. KL is a mean over them: at a fixed τ gradients shrink as m grows.
        centring: Whether the running mean is subtracted from the scores.
        centring_momentum: Weight of the past in the running mean.
        centring_start: How the running mean starts, see ``RunningCentre``.
        normalise: ``l2`` divides the centred scores by their norm; ``none`` keeps their magnitude.
        decision_means: Predict from the class means of p after each epoch, not from the code words.
        balance: β of the class weights N_c^−β in the concentration: 0 is the empirical P(y) of the
            definition, 1 a uniform one.
        prior_shift: β log P(y) is added to the log form's class scores, in training only (logit adjustment,
            Menon et al., ICLR 2021): what is learned then refers to a flatter prior.
        decision_balance: Exponent of the class weights in the fit of the decision: 0 gives probabilities
            under the prior of the data it is fitted to, 1 under a uniform one.
        class_mean_decision: Let the class means of the embeddings correct the decision, where the training
            inputs are given to its fit (``wsi_ncmi.losses.decision.ClassMeanDecision``).
        plain_when_far: Decide samples far from all that the training has seen without class weights and class
            means, where the training inputs are given to the decision's fit
            (``wsi_ncmi.losses.decision.FarDecision``).
    """

    symbols: Symbols | None = 8
    temperature: Positive = 0.5
    symbol_map: SymbolMap = "sigmax"
    code_words: Centroids = "orthogonal"
    code_scale: Positive = 10.0
    means_update: MeansUpdate = "epoch"
    means_momentum: Fraction = 0.9
    bank_size: Count = 256
    ratio: Ratio = "sample"
    power: Power | None = None
    separation: Separation = "centroid"
    own_term_in_mean: bool = False
    direction: Direction = "sample_to_code"
    tau: Positive | None = 1.0
    centring: bool = False
    centring_momentum: Share = 0.99
    centring_start: Literal["cumulative", "batch"] = "cumulative"
    normalise: Normalisation = "none"
    decision_means: bool = False
    balance: Share = 0.0
    prior_shift: NotNegative = 0.0
    decision_balance: Share = 0.0
    class_mean_decision: bool = False
    plain_when_far: bool = False

    @property
    def effective_power(self) -> float:
        """The power in force, where the preset leaves it to the ratio too."""
        if self.power is not None:
            return self.power
        return 0.0 if self.ratio == "log" else -1.0

    @property
    def needs_counts(self) -> bool:
        """True where the number of training samples of each class must be known."""
        return self.balance != 0 or self.prior_shift != 0


_LOG = NCMIForm(ratio="log")
_LOG_REVERSE = NCMIForm(ratio="log", direction="code_to_sample", code_scale=3.0, temperature=1.0)
# Chosen on inner validation (docs/development/ncmi-protocol.md): a logarithm that saturates a little, as the
# code words alone make it robust, and a decision that nearly levels the classes; the class means' share in it
# by docs/development/ncmi-long-tail-protocol.md.
_DEFAULT = replace(
    _LOG_REVERSE, tau=None, power=0.3, decision_balance=0.75, class_mean_decision=True, plain_when_far=True
)
PRESETS: Mapping[Preset, NCMIForm] = {
    "default": _DEFAULT,
    # Chosen there too: half of the prior's margin, and a bound so weak that no rare class is given up.
    "long_tail": replace(_DEFAULT, prior_shift=0.5, power=0.1),
    "log": _LOG,
    "log_reverse": _LOG_REVERSE,
    "ratio": NCMIForm(code_scale=3.0),
    "paper": NCMIForm(
        symbols=None,
        temperature=0.2,
        code_words="identity",
        own_term_in_mean=True,
        centring=True,
        centring_momentum=0.9999,
        centring_start="batch",
        normalise="l2",
        decision_means=True,
    ),
}


def resolve_form(preset: str, overrides: Mapping[str, Any]) -> NCMIForm:
    """The preset's form with the overrides that are not None.

    Raises:
        InputError: There is no such preset or setting, or a value is out of its range.
    """
    form = {str(name): form for name, form in PRESETS.items()}.get(str(preset))
    if form is None:
        raise InputError(f"There is no NCMI preset '{preset}'; choose one of {', '.join(PRESETS)}.")
    given = {name: value for name, value in overrides.items() if value is not None}
    return config_from(NCMIForm, {**asdict(form), **given}, f"NCMI, preset {preset}")
