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
        settings: Fields of :class:`ModelConfig` that its constructor takes.
        group: Field of :class:`ModelConfig` with the settings that are its own.
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
    ModelInfo(
        name="clam_sb",
        paper="Lu et al. 2021, arXiv 2004.09666",
        summary="gated attention with pseudo-labels for the most and least attended instances",
        attention="the pooling weight",
        module="wsi_ncmi.mil.clam",
        class_name="CLAMSB",
        settings=_ATTENTION,
        group="clam",
        needs_classes=True,
    ),
    ModelInfo(
        name="clam_mb",
        paper="Lu et al. 2021, arXiv 2004.09666",
        summary="as clam_sb, with an attention branch and an embedding a class",
        attention="mean of the classes' pooling weights; those of each class are the branches",
        module="wsi_ncmi.mil.clam",
        class_name="CLAMMB",
        settings=_ATTENTION,
        group="clam",
        needs_classes=True,
    ),
    ModelInfo(
        name="dsmil",
        paper="Li et al. 2021, arXiv 2011.08939",
        summary="instances weighted by their likeness to each class's most telling one",
        attention="mean of the classes' weights; those of each class are the branches",
        module="wsi_ncmi.mil.dsmil",
        class_name="DSMIL",
        settings=("input_dropout",),
        group="dsmil",
        needs_classes=True,
    ),
    ModelInfo(
        name="transmil",
        paper="Shao et al. 2021, arXiv 2106.00908",
        summary="transformer with Nyström attention over a square of instances",
        attention="class token's row of the last layer, mean of the heads, negative shares cut off",
        module="wsi_ncmi.mil.transmil",
        class_name="TransMIL",
        settings=_PLAIN,
        group="transmil",
        ordered=True,
    ),
    ModelInfo(
        name="dtfd",
        paper="Zhang et al. 2022, arXiv 2203.12081",
        summary="gated attention in pseudo-bags, then over what these distil",
        attention="weight in the pseudo-bag times that of the pseudo-bag; else that of the distilled",
        module="wsi_ncmi.mil.dtfd",
        class_name="DTFD",
        settings=_ATTENTION,
        group="dtfd",
        needs_classes=True,
        ordered=True,
    ),
    ModelInfo(
        name="acmil",
        paper="Zhang et al. 2024, arXiv 2311.07125",
        summary="several gated attention branches kept apart, favourites masked at random",
        attention="mean of the branches' pooling weights, which is the one that pools",
        module="wsi_ncmi.mil.acmil",
        class_name="ACMIL",
        settings=_ATTENTION,
        group="acmil",
        needs_classes=True,
    ),
    ModelInfo(
        name="aem",
        paper="Zhang et al. 2024, arXiv 2406.15303",
        summary="gated attention pooling with the attention's entropy in the loss",
        attention="the pooling weight",
        module="wsi_ncmi.mil.aem",
        class_name="AEM",
        settings=_ATTENTION,
        group="aem",
    ),
    ModelInfo(
        name="asmil",
        paper="Ye et al. 2026, arXiv 2603.06658",
        summary="query tokens whose attention is held to a slowly moving anchor's",
        attention="mean over query tokens and heads; each of them is a branch",
        module="wsi_ncmi.mil.asmil",
        class_name="ASMIL",
        settings=_PLAIN,
        group="asmil",
    ),
    ModelInfo(
        name="vit",
        paper="El Nahhas et al. 2025, arXiv 2312.10944",
        summary="plain transformer with a class token, as in STAMP",
        attention="class token's row of the last layer, mean of the heads",
        module="wsi_ncmi.mil.vit",
        class_name="VisionTransformer",
        settings=_PLAIN,
        group="vit",
        full_attention=True,
    ),
)
