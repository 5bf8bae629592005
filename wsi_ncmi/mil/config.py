"""Options of the aggregators; free of torch. The defaults are those of the published code."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from wsi_ncmi.core.config import configclass

__all__ = [
    "AcmilConfig",
    "AemConfig",
    "AsmilConfig",
    "ClamConfig",
    "DsmilConfig",
    "DtfdConfig",
    "ModelConfig",
    "TransMilConfig",
    "VitConfig",
    "model_config",
]

_Width = Annotated[int, Field(ge=1)]
_Count = Annotated[int, Field(ge=1)]
_Probability = Annotated[float, Field(ge=0, lt=1)]
_Weight = Annotated[float, Field(ge=0)]


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


@configclass
class ModelConfig:
    """Which aggregator, and its settings.

    Attributes:
        name: A name of ``wsi_ncmi.mil.list_models()``.
        hidden: Width of the instance projection; None is the model's own default.
        attention: Width of the attention branch (attention models); None is the model's own default.
        dropout: Dropout inside the model; None is the model's own default.
        input_dropout: Dropout on the elements of the instance features.
        feature_dropout: Share of features dropped from all instances of a bag in training.
        mixup: α of the mixing of instances within a bag in training; 0 mixes nothing.
        standardise: Bring each feature to mean 0 and deviation 1 over the training instances first; for
            features of very different scales, such as the descriptor's.
        clam: Settings of ``clam_sb`` and ``clam_mb``.
        dsmil: Settings of ``dsmil``.
        transmil: Settings of ``transmil``.
        dtfd: Settings of ``dtfd``.
        acmil: Settings of ``acmil``.
        aem: Settings of ``aem``.
        asmil: Settings of ``asmil``.
        vit: Settings of ``vit``.
    """

    name: str = "abmil"
    hidden: _Width | None = None
    attention: _Width | None = None
    dropout: _Probability | None = None
    input_dropout: _Probability = 0.0
    feature_dropout: _Probability = 0.0
    mixup: _Weight = 0.0
    standardise: bool = False
    clam: ClamConfig = Field(default_factory=ClamConfig)
    dsmil: DsmilConfig = Field(default_factory=DsmilConfig)
    transmil: TransMilConfig = Field(default_factory=TransMilConfig)
    dtfd: DtfdConfig = Field(default_factory=DtfdConfig)
    acmil: AcmilConfig = Field(default_factory=AcmilConfig)
    aem: AemConfig = Field(default_factory=AemConfig)
    asmil: AsmilConfig = Field(default_factory=AsmilConfig)
    vit: VitConfig = Field(default_factory=VitConfig)


def model_config(name: str = "abmil", **settings: Any) -> ModelConfig:
    """The config of the aggregator of that name; a setting that isn't given takes its default."""
    return ModelConfig(name=name, **settings)
