"""All losses by name, with their papers; importing this does not import torch."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses.config import LossConfig

if TYPE_CHECKING:
    from wsi_ncmi.losses.base import Criterion

__all__ = ["LossInfo", "build_loss", "list_losses"]


@dataclass(frozen=True, kw_only=True)
class LossInfo:
    """One entry of the list of losses.

    Attributes:
        name: Name in configurations and on the command line.
        paper: Where the loss comes from.
        summary: One line on what it minimises.
        module: Module of the class.
        class_name: The :class:`~wsi_ncmi.losses.base.Criterion` in it.
        settings: Constructor argument → field of :class:`LossConfig`.
        needs_counts: The constructor takes ``class_counts`` and can't do without.
        takes_counts: The constructor takes ``class_counts``; some settings need them.
        formula: What is minimised, in one line.
    """

    name: str
    paper: str
    summary: str
    module: str
    class_name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    needs_counts: bool = False
    takes_counts: bool = False
    formula: str = ""


_NCMI = (
    "preset",
    "symbols",
    "temperature",
    "symbol_map",
    "code_words",
    "code_scale",
    "means_update",
    "means_momentum",
    "bank_size",
    "ratio",
    "power",
    "separation",
    "direction",
    "tau",
    "centring",
    "normalise",
    "decision_means",
    "balance",
    "prior_shift",
    "decision_balance",
    "ridge",
)

_LOSSES = (
    LossInfo(
        name="ncmi",
        paper="arXiv 2601.02543 (2026)",
        summary="concentration of each class's outputs (conditional mutual information) against separation",
        module="wsi_ncmi.losses.ncmi",
        class_name="NCMILoss",
        settings={name: name for name in _NCMI},
        takes_counts=True,
        formula="(1 − (1 + r)^−q)/q,  r = KL(p‖s_y) / mean_{j≠y} KL(s_j‖p)  or  Σ_{j≠y} exp((d_y − d_j)/τ)",
    ),
    LossInfo(
        name="ce",
        paper="Good 1952 (logarithmic score)",
        summary="cross-entropy of the softmax",
        module="wsi_ncmi.losses.cross_entropy",
        class_name="CrossEntropy",
        formula="−log p_y",
    ),
    LossInfo(
        name="weighted_ce",
        paper="King & Zeng 2001",
        summary="cross-entropy weighted by inverse class frequency",
        module="wsi_ncmi.losses.weighted_cross_entropy",
        class_name="WeightedCrossEntropy",
        formula="−w_y log p_y,  w_c = N/(C·N_c)",
        needs_counts=True,
    ),
    LossInfo(
        name="focal",
        paper="Lin et al. 2017, arXiv 1708.02002",
        summary="cross-entropy in which easy samples count less",
        module="wsi_ncmi.losses.focal",
        class_name="FocalLoss",
        formula="−(1 − p_y)^γ log p_y",
        settings={"gamma": "focal_gamma"},
    ),
    LossInfo(
        name="label_smoothing",
        paper="Szegedy et al. 2016, arXiv 1512.00567",
        summary="cross-entropy against labels mixed with the uniform distribution",
        module="wsi_ncmi.losses.label_smoothing",
        class_name="LabelSmoothing",
        formula="−Σ_j ((1 − ε)·1{j = y} + ε/C) log p_j",
        settings={"smoothing": "label_smoothing"},
    ),
    LossInfo(
        name="poly1",
        paper="Leng et al. 2022, arXiv 2204.12511",
        summary="cross-entropy plus a multiple of 1 − p",
        module="wsi_ncmi.losses.poly",
        class_name="Poly1Loss",
        formula="−log p_y + ε₁ (1 − p_y)",
        settings={"epsilon": "poly_epsilon"},
    ),
    LossInfo(
        name="square",
        paper="Hui & Belkin 2021, arXiv 2006.07322",
        summary="squared distance of the scores from the one-hot label",
        module="wsi_ncmi.losses.square",
        class_name="SquareLoss",
        formula="1/C · (k (f_y − M)² + Σ_{j≠y} f_j²)",
        settings={"scale": "square_scale", "target": "square_target"},
    ),
    LossInfo(
        name="supcon",
        paper="Khosla et al. 2020, arXiv 2004.11362",
        summary="cross-entropy plus contrast of same-class with other slides",
        module="wsi_ncmi.losses.supervised_contrastive",
        class_name="SupervisedContrastive",
        formula="CE + λ · mean_{p∈P(i)} −log(exp(f_i·f_p/τ) / Σ_{a≠i} exp(f_i·f_a/τ))",
        settings={"temperature": "contrastive_temperature", "weight": "contrastive_weight"},
    ),
    LossInfo(
        name="opl",
        paper="Ranasinghe et al. 2021, arXiv 2103.14021",
        summary="cross-entropy plus orthogonality of the classes' embeddings",
        module="wsi_ncmi.losses.orthogonal_projection",
        class_name="OrthogonalProjectionLoss",
        formula="CE + λ · ((1 − s) + γ |d|),  s, d mean cosines within and between classes",
        settings={"weight": "opl_weight", "gamma": "opl_gamma"},
    ),
    LossInfo(
        name="cmic",
        paper="Yang et al. 2023, arXiv 2309.09123",
        summary="cross-entropy plus concentration minus separation (CMIC-DL)",
        module="wsi_ncmi.losses.cmi_constrained",
        class_name="CMIConstrained",
        formula="CE + λ · CMI − β · Γ",
        settings={"cmi_weight": "cmi_weight", "gamma_weight": "gamma_weight"},
    ),
)


def list_losses() -> tuple[LossInfo, ...]:
    """All losses: NCMI first, then its rivals."""
    return _LOSSES


def build_loss(
    options: LossConfig,
    num_classes: int,
    in_features: int | None = None,
    class_counts: Sequence[int] | None = None,
) -> Criterion:
    """Makes the criterion that the options describe.

    Args:
        options: Name and settings.
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None when the inputs are logits.
        class_counts: Training samples of each class (C,); only some losses need them.

    Returns:
        The criterion, on the CPU, in float32.

    Raises:
        InputError: The name is unknown, or the loss needs class counts and none are given.
    """
    entries = {info.name: info for info in _LOSSES}
    info = entries.get(options.name)
    if info is None:
        near = difflib.get_close_matches(options.name, entries, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(entries)}."
        raise InputError(f"There is no loss named '{options.name}'; {hint}")
    arguments: dict[str, Any] = {key: getattr(options, name) for key, name in info.settings.items()}
    if info.needs_counts:
        if class_counts is None:
            raise InputError(f"The loss '{info.name}' needs the number of training samples of each class.")
        arguments["class_counts"] = class_counts
    elif info.takes_counts:
        arguments["class_counts"] = class_counts
    make = cast("Callable[..., Criterion]", getattr(importlib.import_module(info.module), info.class_name))
    return make(num_classes, in_features, **arguments)
