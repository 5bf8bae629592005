"""The settings of each loss among which inner validation chooses: six each, NCMI's too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from wsi_ncmi.losses import LossConfig, loss_config

__all__ = ["ABLATIONS", "GRID", "Setting", "describe_grid"]

_RATES = (5e-4, 1e-3)


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
    """

    loss: str
    name: str
    options: LossConfig
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    sampler: Literal["shuffle", "class_balanced", "patient_balanced"] = "shuffle"


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


def _without_own(loss: str) -> tuple[Setting, ...]:
    # A loss without settings of its own gets its six from the optimiser's.
    return tuple(
        Setting(
            loss=loss, name=f"decay={decay:g} lr={rate:g}", options=loss_config(name=loss),
            learning_rate=rate, weight_decay=decay,
        )
        for decay in (1e-2, 1e-1, 1.0)
        for rate in _RATES
    )  # fmt: skip


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
        "generalised_ce", [{"power": q} for q in (0.3, 0.5, 0.7)], "ncmi", preset="log_reverse",
        symbol_map="softmax", code_words="identity", code_scale=30.0, decision_balance=0.75,
    ),
}  # fmt: skip

ABLATIONS = ("generalised_ce",)
"""Losses of the grid that are forms of NCMI: compared with it, but never its strongest rival."""


def describe_grid(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """JSON-ready: every setting with all its values, as it is written beside the results."""
    return [asdict(setting) for setting in settings]
