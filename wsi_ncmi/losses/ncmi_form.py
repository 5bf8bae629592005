"""The forms of the NCMI loss and the presets among them; free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from wsi_ncmi.core.errors import InputError

__all__ = ["PRESETS", "NCMIForm", "resolve_form"]


@dataclass(frozen=True, kw_only=True)
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
    """

    symbols: int | None = 8
    temperature: float = 0.5
    symbol_map: Literal["sigmax", "softmax"] = "sigmax"
    code_words: Literal["orthogonal", "simplex", "identity", "learned", "means"] = "orthogonal"
    code_scale: float = 10.0
    means_update: Literal["epoch", "running", "bank"] = "epoch"
    means_momentum: float = 0.9
    bank_size: int = 256
    ratio: Literal["sample", "batch", "log"] = "sample"
    power: float | None = None
    separation: Literal["centroid", "pairwise"] = "centroid"
    own_term_in_mean: bool = False
    direction: Literal["sample_to_code", "code_to_sample"] = "sample_to_code"
    tau: float | None = 1.0
    centring: bool = False
    centring_momentum: float = 0.99
    centring_start: Literal["cumulative", "batch"] = "cumulative"
    normalise: Literal["none", "l2"] = "none"
    decision_means: bool = False
    balance: float = 0.0
    prior_shift: float = 0.0
    decision_balance: float = 0.0

    @property
    def exponent(self) -> float:
        """The q that is in force."""
        if self.power is not None:
            return self.power
        return 0.0 if self.ratio == "log" else -1.0

    @property
    def needs_counts(self) -> bool:
        """Whether the training samples of each class must be known."""
        return self.balance != 0 or self.prior_shift != 0


_LOG = NCMIForm(ratio="log")
_LOG_REVERSE = NCMIForm(ratio="log", direction="code_to_sample", code_scale=3.0, temperature=1.0)
PRESETS: Mapping[str, NCMIForm] = {
    # Chosen on inner validation (docs/ncmi-protocol.md): a logarithm that saturates a little, since the code
    # words alone make it robust, and a decision that nearly levels the classes.
    "default": replace(_LOG_REVERSE, tau=None, power=0.3, decision_balance=0.75),
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
        InputError: There is no such preset or setting, or a number is out of its range.
    """
    if preset not in PRESETS:
        raise InputError(f"There is no NCMI preset '{preset}'; choose one of {', '.join(PRESETS)}.")
    known = {item.name for item in fields(NCMIForm)}
    for name in overrides:
        if name not in known:
            raise InputError(f"NCMI has no setting '{name}'; choose among {', '.join(sorted(known))}.")
    form = replace(PRESETS[preset], **{k: v for k, v in overrides.items() if v is not None})
    tau = 1.0 if form.tau is None else form.tau
    if min(form.temperature, tau, form.code_scale) <= 0 or not 0 <= form.centring_momentum <= 1:
        raise InputError(
            "NCMI's temperature, tau and code_scale must be above 0 and centring_momentum within [0, 1], got "
            f"{form.temperature}, {form.tau}, {form.code_scale}, {form.centring_momentum}."
        )
    if not -1 <= form.exponent <= 1 or not 0 <= form.means_momentum < 1 or form.bank_size < 1:
        raise InputError(
            "NCMI's power must be within [-1, 1], means_momentum within [0, 1) and bank_size at least 1, got "
            f"{form.exponent}, {form.means_momentum}, {form.bank_size}."
        )
    return form
