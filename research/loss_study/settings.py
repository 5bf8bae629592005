"""The settings of each loss: those of the inner validation (six each, NCMI's too), exploration, ablation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from wsi_ncmi.losses import LossConfig, loss_config
from wsi_ncmi.mil import ModelConfig, model_config

__all__ = [
    "ABLATIONS", "FLOOR", "GRID", "GRIDS", "LONG_TAIL_GRID", "ON_LESIONS", "REFERENCES", "Setting",
    "ablation_settings", "describe_grid", "exploration_settings", "lead_settings", "model_settings",
    "sensitivity_settings",
]  # fmt: skip

_RATES = (5e-4, 1e-3)
# The decision on far slides came when these studies were done: their rows are of forms without it.
_WITHOUT_FAR = {"plain_when_far": False}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a loss.

    Attributes:
        loss: Name of the loss (or of a form of it) in tables.
        name: Name of the setting, unique within the loss.
        options: The loss.
        learning_rate: Peak rate of AdamW.
        weight_decay: Decoupled decay.
        sampler: How the bags of an epoch are drawn, see ``TrainingConfig``.
        model: Aggregator; None = the study's.
    """

    loss: str
    name: str
    options: LossConfig
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    sampler: Literal["shuffle", "class_balanced", "patient_balanced"] = "shuffle"
    model: ModelConfig | None = None


def _settings(
    loss: str, variants: Sequence[Mapping[str, Any]], kind: str | None = None, **common: Any
) -> tuple[Setting, ...]:
    return tuple(
        Setting(
            loss=loss,
            name=f"{_words(values)} lr={rate:g}",
            options=loss_config(name=kind or loss, **common, **values),
            learning_rate=rate,
        )
        for values in variants
        for rate in _RATES
    )


def _words(values: Mapping[str, Any]) -> str:
    return " ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
    )


def _without_own(loss: str, decays: Sequence[float] = (1e-2, 1e-1, 1.0)) -> tuple[Setting, ...]:
    # A loss without settings of its own gets its six from the optimiser's.
    return tuple(
        Setting(
            loss=loss, name=f"decay={decay:g} lr={rate:g}", options=loss_config(name=loss),
            learning_rate=rate, weight_decay=decay,
        )
        for decay in decays
        for rate in _RATES
    )  # fmt: skip


_SOFTMAX_FORM: Mapping[str, Any] = {
    "preset": "log_reverse", "symbol_map": "softmax", "code_words": "identity", "code_scale": 30.0,
    "decision_balance": 0.75,
}  # fmt: skip

GRID: Mapping[str, tuple[Setting, ...]] = {
    "ncmi": _settings("ncmi", [{"power": 0.0}, {"power": 0.15}, {"power": 0.3}]),
    "ce": _without_own("ce"),
    "weighted_ce": _without_own("weighted_ce"),
    "focal": _settings("focal", [{"focal_gamma": g} for g in (0.5, 1.0, 2.0)]),
    "label_smoothing": _settings("label_smoothing", [{"label_smoothing": e} for e in (0.1, 0.2, 0.4)]),
    "poly1": _settings("poly1", [{"poly_epsilon": e} for e in (1.0, 3.0, 10.0)]),
    "square": _settings(
        "square", [{"square_scale": k, "square_target": m} for k, m in ((1.0, 1.0), (1.0, 3.0), (3.0, 3.0))]
    ),
    "supcon": _settings(
        "supcon",
        [
            {"contrastive_weight": w, "contrastive_temperature": t}
            for w, t in ((0.3, 0.1), (1.0, 0.1), (1.0, 0.3))
        ],
    ),
    "opl": _settings(
        "opl", [{"opl_weight": w, "opl_gamma": g} for w, g in ((0.3, 0.5), (1.0, 0.5), (1.0, 2.0))]
    ),
    "cmic": _settings(
        "cmic", [{"cmi_weight": a, "gamma_weight": b} for a, b in ((0.1, 0.02), (0.5, 0.1), (1.0, 0.2))]
    ),
    # No rival but an ablation: NCMI without its code words and its map, everything else equal, which is the
    # generalised cross-entropy of Zhang & Sabuncu (arXiv 1805.07836) on a plain softmax.
    "generalised_ce": _settings(
        "generalised_ce", [{"power": q} for q in (0.3, 0.5, 0.7)], "ncmi", **_SOFTMAX_FORM
    ),
}  # fmt: skip


def _with_decay(
    loss: str, variants: Sequence[Mapping[str, Any]], kind: str | None = None, **common: Any
) -> tuple[Setting, ...]:
    return tuple(
        Setting(
            loss=loss, name=f"{_words(values)} decay={decay:g}".strip(), weight_decay=decay,
            options=loss_config(name=kind or loss, **common, **values),
        )
        for values in variants
        for decay in (1e-2, 1.0)
    )  # fmt: skip


# The best lead and, as q = 0.3 gives up classes where there are 43, the same less bounded.
_NCMI_VALUES: Sequence[Mapping[str, Any]] = (
    {"prior_shift": 0.0}, {"prior_shift": 0.5}, {"prior_shift": 0.5, "power": 0.1},
)  # fmt: skip
LONG_TAIL_GRID: Mapping[str, tuple[Setting, ...]] = {
    "ncmi": _with_decay("ncmi", _NCMI_VALUES, **_WITHOUT_FAR),
    "ncmi_code_words": _with_decay(
        "ncmi_code_words", _NCMI_VALUES, "ncmi", class_mean_decision=False, **_WITHOUT_FAR
    ),
    "ce": _without_own("ce", (1e-2, 1.0, 3.0)),
    "weighted_ce": _without_own("weighted_ce", (1e-2, 1.0, 3.0)),
    "focal": _with_decay("focal", [{"focal_gamma": g} for g in (0.5, 1.0, 2.0)]),
    "cb_focal": _with_decay(
        "cb_focal", [{"cb_gamma": g, "cb_beta": b} for g, b in ((1.0, 0.99), (1.0, 0.999), (2.0, 0.999))]
    ),
    "logit_adjusted": _with_decay("logit_adjusted", [{"adjustment": a} for a in (0.5, 1.0, 1.5)]),
    "ldam": _with_decay(
        "ldam", [{"ldam_scale": s, "ldam_margin": m} for s, m in ((10.0, 0.5), (30.0, 0.3), (30.0, 0.5))]
    ),
    "label_smoothing": _with_decay("label_smoothing", [{"label_smoothing": e} for e in (0.1, 0.2, 0.4)]),
    "poly1": _with_decay("poly1", [{"poly_epsilon": e} for e in (1.0, 3.0, 10.0)]),
    "square": _with_decay(
        "square", [{"square_scale": k, "square_target": m} for k, m in ((1.0, 1.0), (1.0, 3.0), (3.0, 3.0))]
    ),
    "supcon": _with_decay(
        "supcon",
        [
            {"contrastive_weight": w, "contrastive_temperature": t}
            for w, t in ((0.3, 0.1), (1.0, 0.1), (1.0, 0.3))
        ],
    ),
    "opl": _with_decay(
        "opl", [{"opl_weight": w, "opl_gamma": g} for w, g in ((0.3, 0.5), (1.0, 0.5), (1.0, 2.0))]
    ),
    "cmic": _with_decay(
        "cmic", [{"cmi_weight": a, "gamma_weight": b} for a, b in ((0.1, 0.02), (0.5, 0.1), (1.0, 0.2))]
    ),
    "generalised_ce": _with_decay(
        "generalised_ce", [{"power": q} for q in (0.3, 0.5, 0.7)], "ncmi", **_SOFTMAX_FORM
    ),
}  # fmt: skip

GRIDS: Mapping[str, Mapping[str, tuple[Setting, ...]]] = {"short": GRID, "long_tail": LONG_TAIL_GRID}
"""Settings of ``tune``, six a loss: ``short`` is that of the first study; ``long_tail`` has weight decay in
place of the rate, and the rivals of long tails."""

ABLATIONS = ("generalised_ce", "ncmi_code_words")
"""Losses of the grid that are forms of NCMI: compared with it, but never its strongest rival."""


FLOOR = "floor"
"""No loss but what every model must beat: logistic regression on each slide's mean tile."""

REFERENCES = (
    Setting(loss="ncmi_default", name="default", options=loss_config(name="ncmi", **_WITHOUT_FAR)),
    Setting(loss=FLOOR, name="logistic regression", options=loss_config(name="ce")),
)
"""What ``confirm`` of a long-tail study has beside the chosen settings, and what is no rival either: NCMI as
it was without any setting, and the floor."""


ON_LESIONS = (
    Setting(
        loss="ncmi_rare_lesions", name="rare_lesions",
        options=loss_config(name="ncmi", decision_balance=0.0, class_mean_decision=False, **_WITHOUT_FAR),
    ),
    Setting(loss="ncmi_far", name="default", options=loss_config(name="ncmi")),
)  # fmt: skip
"""NCMI without class weights and class means in its decision, and as it is since: without them for slides far
from all of the training. In ``confirm`` where they are named."""


def describe_grid(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """JSON-ready: every setting with all its values, as it is written beside the results."""
    return [asdict(setting) for setting in settings]


def _ncmi(name: str, rate: float = 5e-4, **values: Any) -> Setting:
    return Setting(
        loss="ncmi", name=name, options=loss_config(name="ncmi", **values), learning_rate=rate
    )  # fmt: skip


def _rival(loss: str, name: str, rate: float = 5e-4, **values: Any) -> Setting:
    return Setting(loss=loss, name=name, options=loss_config(name=loss, **values), learning_rate=rate)


def exploration_settings() -> tuple[Setting, ...]:
    """References, then forms that differ from one another in one choice."""
    even: dict[str, Any] = {"decision_balance": 1.0}
    reverse: dict[str, Any] = {"preset": "log_reverse"}
    return (
        _rival("ce", "reference"),
        _rival("weighted_ce", "reference"),
        _rival("label_smoothing", "0.2", label_smoothing=0.2),
        _ncmi("reverse q=0", **reverse),
        _ncmi("reverse q=0.5", **reverse, power=0.5),
        _ncmi("reverse q=0.8", **reverse, power=0.8),
        _ncmi("reverse q=0 even", **reverse, **even),
        _ncmi("reverse q=0.5 shift=1 even", **reverse, **even, power=0.5, prior_shift=1.0),
        _ncmi("reverse q=0.8 shift=1 even", **reverse, **even, power=0.8, prior_shift=1.0),
        _ncmi("reverse q=0.5 balance=1 even", **reverse, **even, power=0.5, balance=1.0),
        _ncmi("ratio q=-1", preset="ratio", temperature=1.0),
        _ncmi("ratio q=0", preset="ratio", temperature=1.0, power=0.0),
        _ncmi("ratio q=1", preset="ratio", temperature=1.0, power=1.0),
        _ncmi("forward tau=1", preset="log"),
        _ncmi("forward tau=2.5", preset="log", tau=2.5),
        _ncmi("pairwise running means", preset="ratio", temperature=1.0, ratio="batch",
              separation="pairwise", code_words="means", means_update="running", means_momentum=0.99),
        _ncmi("reverse simplex q=0.5", **reverse, power=0.5, code_words="simplex"),
        # Second round: is it the loss, or only that its scores grow faster at one rate?
        _rival("ce", "lr=1e-3", 1e-3),
        _rival("ce", "lr=2e-3", 2e-3),
        _rival("label_smoothing", "0.2 lr=2e-3", 2e-3, label_smoothing=0.2),
        _ncmi("reverse q=0.8 lr=1e-3", 1e-3, **reverse, power=0.8),
        _ncmi("reverse q=0.8 lr=2.5e-4", 2.5e-4, **reverse, power=0.8),
        _ncmi("reverse q=0.5 T=2", **reverse, power=0.5, temperature=2.0),
        _ncmi("ratio q=0.5", preset="ratio", temperature=1.0, power=0.5),
        _ncmi("ratio q=0.5 T=2", preset="ratio", temperature=2.0, power=0.5),
        _ncmi("ratio q=0.5 even", preset="ratio", temperature=1.0, power=0.5, **even),
    )  # fmt: skip


def sensitivity_settings() -> tuple[Setting, ...]:
    """The default with one of temperature, symbols and q changed at a time."""
    return (
        *(_ncmi(f"T={t:g}", temperature=t) for t in (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)),
        *(_ncmi(f"m={m}", symbols=m) for m in (4, 8, 16, 32, 64)),
        *(_ncmi(f"q={q:g}", power=q) for q in (-0.5, 0.0, 0.15, 0.3, 0.6, 1.0)),
    )


def ablation_settings() -> tuple[Setting, ...]:
    """The default with one part replaced or left out at a time, and the other ratios."""
    means: dict[str, Any] = {"code_words": "means"}
    level: dict[str, Any] = {"temperature": 1.0, "power": 0.3, "decision_balance": 0.75}
    return (
        _ncmi("default"),
        _ncmi("map: softmax", symbol_map="softmax"),
        _ncmi("temperature: tau=1", tau=1.0),
        _ncmi("centring", centring=True),
        _ncmi("normalisation: l2", normalise="l2", temperature=0.2),
        _ncmi("code words: simplex", code_words="simplex"),
        _ncmi("code words: identity", code_words="identity"),
        _ncmi("code words: learned", code_words="learned"),
        _ncmi("alternating: epoch passes", **means, means_update="epoch"),
        _ncmi("alternating: running means", **means, means_update="running"),
        _ncmi("alternating: memory bank", **means, means_update="bank"),
        _ncmi("direction: KL(p|s)", direction="sample_to_code"),
        _ncmi("ratio: sample", preset="ratio", **level),
        _ncmi("ratio: batch, centroid", preset="ratio", ratio="batch", **level),
        _ncmi("ratio: batch, pairwise, running means", preset="ratio", ratio="batch", separation="pairwise",
              **means, means_update="running", **level),
        _ncmi("paper", preset="paper"),
        _ncmi("decision: prior kept", decision_balance=0.0),
        _ncmi("decision: ridge 1", ridge=1.0),
        _ncmi("prior shift 0.5", prior_shift=0.5),
        _ncmi("class weights 0.5", balance=0.5),
        Setting(loss="ncmi", name="sampler: class-balanced", options=loss_config(name="ncmi"),
                sampler="class_balanced"),
    )  # fmt: skip


def lead_settings() -> tuple[Setting, ...]:
    """Forms of NCMI for long tails, and the references, all with the weight decay that helps there."""

    def ncmi(name: str, sampler: Literal["shuffle", "class_balanced"] = "shuffle", **values: Any) -> Setting:
        options = loss_config(name="ncmi", **values)
        return Setting(loss="ncmi", name=name, options=options, weight_decay=1.0, sampler=sampler)

    shift: dict[str, Any] = {"prior_shift": 1.0}
    means: dict[str, Any] = {"prior_shift": 0.5, "code_words": "means", "class_mean_decision": False}
    return (
        *(
            Setting(loss=loss, name="reference", options=loss_config(name=loss), weight_decay=1.0)
            for loss in ("ce", "weighted_ce", "poly1", "logit_adjusted")
        ),
        ncmi("default"),
        ncmi("shift 1", **shift),
        ncmi("shift 0.5", prior_shift=0.5),
        ncmi("shift 1, decision 0", **shift, decision_balance=0.0),
        ncmi("shift 1, decision 1", **shift, decision_balance=1.0),
        ncmi("balance 1", balance=1.0),
        ncmi("shift 1, balance 0.5", **shift, balance=0.5),
        ncmi("shift 1, q 0", **shift, power=0.0),
        ncmi("shift 1, q 0.6", **shift, power=0.6),
        ncmi("shift 1, m 64", **shift, symbols=64),
        ncmi("shift 1, m 128", **shift, symbols=128),
        ncmi("shift 1, simplex", **shift, code_words="simplex"),
        ncmi("shift 1, learned words", **shift, code_words="learned"),
        ncmi("class-balanced sampler", sampler="class_balanced"),
        # Later, when the default had its class means: without them, as the others were.
        ncmi("shift 0.5, class means as words", **means),
        ncmi("shift 0.5, running means as words", **means, means_update="running", means_momentum=0.99),
    )


def model_settings() -> tuple[Setting, ...]:
    """Aggregators that may find few tiles among thousands, for cross-entropy and NCMI."""
    sizes: Mapping[str, Mapping[str, int]] = {
        "abmil": {"hidden": 128, "attention": 64},
        "max": {"hidden": 128},
        "dsmil": {},
        "clam_sb": {"hidden": 128, "attention": 64},
        "acmil": {"hidden": 128, "attention": 64},
        "dtfd": {"hidden": 128, "attention": 64},
    }
    return tuple(
        Setting(loss=options.name, name=name, options=options, model=model_config(name=name, **values))
        for name, values in sizes.items()
        for options in (loss_config(name="ce"), loss_config(name="ncmi", **_WITHOUT_FAR))
    )
