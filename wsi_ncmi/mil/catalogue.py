"""What there is to say of each aggregator; importing this does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MODELS", "ModelInfo"]


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One entry of the list of aggregators.

    Attributes:
        name: Name in configurations and on the command line.
        paper: Where the model comes from.
        summary: One line on how it pools.
        attention: What the reported attention of an instance is.
        module: Module of the class.
        class_name: The :class:`~wsi_ncmi.mil.base.Aggregator` in it.
        settings: Fields of :class:`ModelOptions` that its constructor takes.
        group: Field of :class:`ModelOptions` with the settings that are its own.
        needs_classes: The constructor takes ``num_classes``.
        ordered: The order of the instances matters (the model places them in a grid or in groups).
        full_attention: Every instance attends to every other: time grows with the square of the bag.
    """

    name: str
    paper: str
    summary: str
    attention: str
    module: str
    class_name: str
    settings: tuple[str, ...]
    group: str | None = None
    needs_classes: bool = False
    ordered: bool = False
    full_attention: bool = False


_ATTENTION = ("hidden", "attention", "dropout", "input_dropout")
_PLAIN = ("hidden", "dropout", "input_dropout")
MODELS = (
    ModelInfo(
        name="abmil",
        paper="Ilse et al. 2018, arXiv 1802.04712, eq. 9",
        summary="gated attention pooling",
        attention="the pooling weight",
        module="wsi_ncmi.mil.abmil",
        class_name="GatedABMIL",
        settings=_ATTENTION,
    ),
    ModelInfo(
        name="abmil_plain",
        paper="Ilse et al. 2018, arXiv 1802.04712, eq. 8",
        summary="attention pooling without the gate",
        attention="the pooling weight",
        module="wsi_ncmi.mil.abmil",
        class_name="ABMIL",
        settings=_ATTENTION,
    ),
    ModelInfo(
        name="mean",
        paper="Ilse et al. 2018, arXiv 1802.04712, section 2.3",
        summary="mean of the projected instances",
        attention="1/N",
        module="wsi_ncmi.mil.pooling",
        class_name="MeanPool",
        settings=_PLAIN,
    ),
    ModelInfo(
        name="max",
        paper="Ilse et al. 2018, arXiv 1802.04712, section 2.3",
        summary="maximum of the projected instances, element by element",
        attention="share of the embedding's elements in which the instance is the maximum",
        module="wsi_ncmi.mil.pooling",
        class_name="MaxPool",
        settings=_PLAIN,
    ),
)
