"""The aggregators by name: the settings of each, its paper, and the class that they build; free of torch.

A new aggregator is a module with its class and one class here. The defaults are those of the published code.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, TypeVar, dataclass_transform

from pydantic import Field, model_validator

from wsi_ncmi.core.config import Named, configclass

__all__ = [
    "MODELS", "AcmilConfig", "AemConfig", "AnyModel", "AsmilConfig", "ClamConfig", "DsmilConfig",
    "DtfdConfig", "ModelConfig", "TransMilConfig", "VitConfig", "register_model",
]  # fmt: skip

_M = TypeVar("_M", bound="ModelConfig")
_Width = Annotated[int, Field(ge=1)]
_Count = Annotated[int, Field(ge=1)]
_Probability = Annotated[float, Field(ge=0, lt=1)]
_Weight = Annotated[float, Field(ge=0)]

MODELS: dict[str, type[ModelConfig]] = {}
"""Name → config class of every aggregator."""


@configclass
class ModelConfig:
    """An aggregator and its settings; each aggregator has a class of its own, with what all of them share.

    Attributes:
        name: Name of the aggregator (``wsi-ncmi models``).
        input_dropout: Dropout on the elements of the instance features.
        feature_dropout: Share of features dropped from all instances of a bag in training.
        mixup: α of the mixing of instances within a bag in training; 0 mixes nothing.
        standardise: Bring each feature to mean 0 and deviation 1 over the training instances first; for
            features of very different scales, such as the descriptor's.
    """

    name: str
    input_dropout: _Probability = 0.0
    feature_dropout: _Probability = 0.0
    mixup: _Weight = 0.0
    standardise: bool = False

    aggregator: ClassVar[str]
    """The :class:`~wsi_ncmi.mil.base.Aggregator` that the settings build, as ``module:class``."""
    paper: ClassVar[str]
    summary: ClassVar[str]
    """How it pools, in one line."""
    reported_attention: ClassVar[str]
    """The meaning of an instance's reported attention."""
    needs_classes: ClassVar[bool] = False
    """The aggregator takes ``num_classes``."""
    ordered: ClassVar[bool] = False
    """The order of the instances matters (the model places them in a square or in groups)."""
    pools_evenly: ClassVar[bool] = False
    """Every instance has the same weight: there is no attention to show."""
    rate_factor: ClassVar[float] = 1.0
    """The model learns at so many times the training's rate, which was chosen for networks."""
    full_attention: ClassVar[bool] = False
    """Every instance attends to every other: time grows with the square of the bag."""


@configclass
class _ProjectionConfig(ModelConfig):
    """Settings of the aggregators that project the instances first.

    Attributes:
        hidden: Width of the instance projection; None is the model's own default.
        dropout: Dropout inside the model; None is the model's own default.
    """

    hidden: _Width | None = None
    dropout: _Probability | None = None


@configclass
class _AttentionConfig(_ProjectionConfig):
    """Settings of the aggregators with an attention branch.

    Attributes:
        attention: Width of the attention branch; None is the model's own default.
    """

    attention: _Width | None = None


@dataclass_transform(kw_only_default=True, frozen_default=True)
def register_model(cls: type[_M]) -> type[_M]:
    """Makes a config class of an aggregator and lists it under its name."""
    made = configclass(cls)
    MODELS[made.name] = made
    return made


_P = TypeVar("_P", bound=_ProjectionConfig)


def _check_heads(config: _P, heads: int) -> _P:
    width = config.hidden or 512
    if width % heads:
        raise ValueError(f"the heads of {config.name} ({heads}) must divide hidden ({width})")
    return config


@configclass
class ClamConfig:
    """CLAM (Lu et al. 2021).

    Attributes:
        gated: Gated attention; false is the plain one.
        k_sample: Instances of highest and of lowest attention that get pseudo-labels.
        subtyping: Classes exclude each other: the highest instances are negatives of the other classes too.
        instance_loss: ``svm`` = smooth top-1 SVM of the paper, ``ce`` = cross-entropy.
        instance_weight: Weight of the instance loss beside the bag loss; 0.3 / 0.7 as published.
    """

    gated: bool = True
    k_sample: _Count = 8
    subtyping: bool = False
    instance_loss: Literal["svm", "ce"] = "svm"
    instance_weight: _Weight = 3 / 7


@configclass
class DsmilConfig:
    """DSMIL (Li et al. 2021).

    Attributes:
        query: ``nonlinear`` = linear, ReLU, linear, tanh; ``linear`` = one layer, as the paper writes it.
        query_width: Width of the queries.
        value: ``identity``, ``linear`` (as the paper writes it) or ``relu`` (the repository's ``passing_v``).
        value_dropout: Dropout in front of the value layer.
        instance_loss: Loss of the critical instances' scores: ``bce`` against one-hot labels as published, or
            ``ce``.
        instance_weight: Its weight beside the bag loss; equal as published.
    """

    query: Literal["nonlinear", "linear"] = "nonlinear"
    query_width: _Width = 128
    value: Literal["identity", "linear", "relu"] = "identity"
    value_dropout: _Probability = 0.0
    instance_loss: Literal["bce", "ce"] = "bce"
    instance_weight: _Weight = 1.0


@configclass
class TransMilConfig:
    """TransMIL (Shao et al. 2021).

    Attributes:
        heads: Heads of the Nyström attention; they divide ``hidden``.
        landmarks: Landmarks; None takes half of ``hidden``.
        pinv_iterations: Steps of the iterative pseudo-inverse.
        residual_kernel: Length of the depth-wise convolution over the values; odd.
    """

    heads: _Count = 8
    landmarks: _Count | None = None
    pinv_iterations: _Count = 6
    residual_kernel: _Count = 33

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.residual_kernel % 2 == 0:
            raise ValueError(f"residual_kernel must be odd, got {self.residual_kernel}")
        return self


@configclass
class DtfdConfig:
    """DTFD-MIL (Zhang et al. 2022).

    Attributes:
        pseudo_bags: Pseudo-bags of a slide.
        distillation: What each pseudo-bag hands on: ``afs`` its aggregated feature, ``max`` its most probable
            instances, ``maxmin`` these and the least probable ones, ``mas`` those of highest attention.
        instances: Instances a pseudo-bag hands on (``max``, ``maxmin``, ``mas``).
        first_tier_weight: Weight of the pseudo-bags' loss; 0 leaves the first tier as it is unless ``joint``.
        joint: Let the second tier's loss train the first tier too; false as published.
    """

    pseudo_bags: _Count = 4
    distillation: Literal["afs", "max", "maxmin", "mas"] = "afs"
    instances: _Count = 1
    first_tier_weight: _Weight = 1.0
    joint: bool = False


@configclass
class AcmilConfig:
    """ACMIL (Zhang et al. 2024).

    Attributes:
        branches: Attention branches.
        masked: Instances of highest attention of which some are masked in training.
        mask_share: Share of them that is masked.
        branch_weight: Weight of the branches' own classification loss.
        diversity_weight: Weight of the mean cosine similarity between branches.
    """

    branches: _Count = 5
    masked: Annotated[int, Field(ge=0)] = 10
    mask_share: _Probability = 0.6
    branch_weight: _Weight = 1.0
    diversity_weight: _Weight = 1.0


@configclass
class AemConfig:
    """AEM (Zhang et al. 2024).

    Attributes:
        entropy_weight: λ of the negative attention entropy.
    """

    entropy_weight: _Weight = 0.1


@configclass
class AsmilConfig:
    """ASMIL (Ye et al. 2026).

    Attributes:
        tokens: Query tokens, each with an attention of its own.
        dropped: Tokens dropped from a bag at random in training; fewer than ``tokens``.
        heads: Heads; they divide ``hidden``.
        anchor_weight: Weight of the pull towards the anchor's attention.
        anchor_decay: Decay of the anchor's moving average.
        temperature: Divides the anchor's scores before the normalised sigmoid.
    """

    tokens: _Count = 8
    dropped: Annotated[int, Field(ge=0)] = 4
    heads: _Count = 8
    anchor_weight: _Weight = 1.0
    anchor_decay: _Probability = 0.999
    temperature: Annotated[float, Field(gt=0)] = 0.5

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dropped >= self.tokens:
            raise ValueError(f"fewer tokens must be dropped ({self.dropped}) than there are ({self.tokens})")
        return self


@configclass
class VitConfig:
    """The transformer of STAMP (El Nahhas et al. 2025).

    Attributes:
        layers: Transformer layers.
        heads: Heads; they divide ``hidden``.
        feed_forward: Width inside the feed-forward layers.
        feed_forward_dropout: Dropout in the feed-forward layers.
        alibi: Linear distance biases; needs the tiles' coordinates.
    """

    layers: _Count = 2
    heads: _Count = 8
    feed_forward: _Width = 512
    feed_forward_dropout: _Probability = 0.5
    alibi: bool = False


@register_model
class ABMILModelConfig(_AttentionConfig):
    """Attention MIL with the gate."""

    aggregator = "wsi_ncmi.mil.abmil:GatedABMIL"
    paper = "Ilse et al. 2018, arXiv 1802.04712, eq. 9"
    summary = "gated attention pooling"
    reported_attention = "the pooling weight"

    name: Literal["abmil"] = "abmil"


@register_model
class PlainABMILModelConfig(_AttentionConfig):
    """Attention MIL without the gate."""

    aggregator = "wsi_ncmi.mil.abmil:ABMIL"
    paper = "Ilse et al. 2018, arXiv 1802.04712, eq. 8"
    summary = "attention pooling without the gate"
    reported_attention = "the pooling weight"

    name: Literal["abmil_plain"] = "abmil_plain"


@register_model
class MeanModelConfig(_ProjectionConfig):
    """Mean pooling."""

    aggregator = "wsi_ncmi.mil.pooling:MeanPool"
    paper = "Ilse et al. 2018, arXiv 1802.04712, section 2.3"
    summary = "mean of the projected instances"
    reported_attention = "1/N"
    pools_evenly = True

    name: Literal["mean"] = "mean"


@register_model
class MaxModelConfig(_ProjectionConfig):
    """Maximum pooling."""

    aggregator = "wsi_ncmi.mil.pooling:MaxPool"
    paper = "Ilse et al. 2018, arXiv 1802.04712, section 2.3"
    summary = "maximum of the projected instances, element by element"
    reported_attention = "share of the embedding's elements in which the instance is the maximum"

    name: Literal["max"] = "max"


@register_model
class ClamSBModelConfig(_AttentionConfig):
    """CLAM with one attention branch.

    Attributes:
        clam: Settings of its own.
    """

    aggregator = "wsi_ncmi.mil.clam:CLAMSB"
    paper = "Lu et al. 2021, arXiv 2004.09666"
    summary = "gated attention with pseudo-labels for the most and least attended instances"
    reported_attention = "the pooling weight"
    needs_classes = True

    name: Literal["clam_sb"] = "clam_sb"
    clam: ClamConfig = Field(default_factory=ClamConfig)


@register_model
class ClamMBModelConfig(_AttentionConfig):
    """CLAM with an attention branch a class.

    Attributes:
        clam: Settings of its own.
    """

    aggregator = "wsi_ncmi.mil.clam:CLAMMB"
    paper = "Lu et al. 2021, arXiv 2004.09666"
    summary = "as clam_sb, with an attention branch and an embedding a class"
    reported_attention = "mean of the classes' pooling weights; those of each class are the branches"
    needs_classes = True

    name: Literal["clam_mb"] = "clam_mb"
    clam: ClamConfig = Field(default_factory=ClamConfig)


@register_model
class DsmilModelConfig(ModelConfig):
    """DSMIL.

    Attributes:
        dsmil: Settings of its own.
    """

    aggregator = "wsi_ncmi.mil.dsmil:DSMIL"
    paper = "Li et al. 2021, arXiv 2011.08939"
    summary = "instances weighted by their similarity to each class's critical one"
    reported_attention = "mean of the classes' weights; those of each class are the branches"
    needs_classes = True

    name: Literal["dsmil"] = "dsmil"
    dsmil: DsmilConfig = Field(default_factory=DsmilConfig)


@register_model
class TransMilModelConfig(_ProjectionConfig):
    """TransMIL.

    Attributes:
        transmil: Settings of its own.
    """

    aggregator = "wsi_ncmi.mil.transmil:TransMIL"
    paper = "Shao et al. 2021, arXiv 2106.00908"
    summary = "transformer with Nyström attention over a square of instances"
    reported_attention = "class token's row of the last layer, mean of the heads, negative shares cut off"
    ordered = True

    name: Literal["transmil"] = "transmil"
    transmil: TransMilConfig = Field(default_factory=TransMilConfig)

    @model_validator(mode="after")
    def _check(self) -> Self:
        return _check_heads(self, self.transmil.heads)


@register_model
class DtfdModelConfig(_AttentionConfig):
    """DTFD-MIL.

    Attributes:
        dtfd: Settings of its own.
    """

    aggregator = "wsi_ncmi.mil.dtfd:DTFD"
    paper = "Zhang et al. 2022, arXiv 2203.12081"
    summary = "gated attention in pseudo-bags, then over what these distil"
    reported_attention = "weight in the pseudo-bag times that of the pseudo-bag; else that of the distilled"
    needs_classes = True
    ordered = True

    name: Literal["dtfd"] = "dtfd"
    dtfd: DtfdConfig = Field(default_factory=DtfdConfig)


@register_model
class AcmilModelConfig(_AttentionConfig):
    """ACMIL.

    Attributes:
        acmil: Settings of its own.
    """

    aggregator = "wsi_ncmi.mil.acmil:ACMIL"
    paper = "Zhang et al. 2024, arXiv 2311.07125"
    summary = "diverse gated attention branches, most attended instances masked at random"
    reported_attention = "mean of the branches' pooling weights, which is the one that pools"
    needs_classes = True

    name: Literal["acmil"] = "acmil"
    acmil: AcmilConfig = Field(default_factory=AcmilConfig)


@register_model
class AemModelConfig(_AttentionConfig):
    """AEM.

    Attributes:
        aem: Settings of its own.
    """

    aggregator = "wsi_ncmi.mil.aem:AEM"
    paper = "Zhang et al. 2024, arXiv 2406.15303"
    summary = "gated attention pooling with the attention's entropy in the loss"
    reported_attention = "the pooling weight"

    name: Literal["aem"] = "aem"
    aem: AemConfig = Field(default_factory=AemConfig)


@register_model
class AsmilModelConfig(_ProjectionConfig):
    """ASMIL.

    Attributes:
        asmil: Settings of its own.
    """

    aggregator = "wsi_ncmi.mil.asmil:ASMIL"
    paper = "Ye et al. 2026, arXiv 2603.06658"
    summary = "query tokens whose attention is held to a slowly moving anchor's"
    reported_attention = "mean over query tokens and heads; each of them is a branch"

    name: Literal["asmil"] = "asmil"
    asmil: AsmilConfig = Field(default_factory=AsmilConfig)

    @model_validator(mode="after")
    def _check(self) -> Self:
        return _check_heads(self, self.asmil.heads)


@register_model
class VitModelConfig(_ProjectionConfig):
    """The transformer of STAMP.

    Attributes:
        vit: Settings of its own.
    """

    aggregator = "wsi_ncmi.mil.vit:VisionTransformer"
    paper = "El Nahhas et al. 2025, arXiv 2312.10944"
    summary = "plain transformer with a class token, as in STAMP"
    reported_attention = "class token's row of the last layer, mean of the heads"
    full_attention = True

    name: Literal["vit"] = "vit"
    vit: VitConfig = Field(default_factory=VitConfig)

    @model_validator(mode="after")
    def _check(self) -> Self:
        return _check_heads(self, self.vit.heads)


@configclass
class _VectorConfig(ModelConfig):
    """Settings of the models of one vector a slide; each element of it is brought to mean 0 and deviation 1.

    Attributes:
        standardise: Bring each element to mean 0 and deviation 1 over the training slides first.
    """

    standardise: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mixup:
            raise ValueError(
                f"mixup has no effect on {self.name}: mixing the instances of a bag keeps its mean"
            )
        if self.feature_dropout:
            raise ValueError(f"{self.name} takes one vector a slide, whose features input_dropout drops")
        return self


@register_model
class LinearModelConfig(_VectorConfig):
    """The slide's vector, or the mean of its tiles, under a linear head; it learns at 20 times the rate."""

    aggregator = "wsi_ncmi.mil.vectors:Linear"
    rate_factor = 20.0
    paper = "Alain & Bengio 2016, arXiv 1610.01644 (linear probes)"
    summary = "one vector a slide (of bags: the mean), standardised, under a linear head"
    reported_attention = "1/N"
    pools_evenly = True

    name: Literal["linear"] = "linear"


@register_model
class MlpModelConfig(_VectorConfig):
    """Hidden layers on the slide's vector, or on the mean of its tiles.

    Attributes:
        hidden: Width of the layers.
        layers: Hidden layers.
        dropout: Dropout after each of them.
    """

    aggregator = "wsi_ncmi.mil.vectors:MLP"
    paper = "El Nahhas et al. 2024 (STAMP), arXiv 2312.10944"
    summary = "as linear, with hidden layers between"
    reported_attention = "1/N"
    pools_evenly = True

    name: Literal["mlp"] = "mlp"
    hidden: _Width = 256
    layers: _Count = 1
    dropout: _Probability = 0.25


_WRITTEN_BY_0_1 = """
name hidden attention dropout input_dropout feature_dropout mixup standardise
clam dsmil transmil dtfd acmil aem asmil vit
"""
AnyModel = Annotated[ModelConfig, Named("model", lambda: MODELS, "abmil", frozenset(_WRITTEN_BY_0_1.split()))]
"""Type of a field that holds a model: its name, its settings with the name among them, or a config."""
