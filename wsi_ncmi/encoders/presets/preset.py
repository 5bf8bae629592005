"""What a preset states: how the network is built, what it sees, what it gives, and what that rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["IMAGENET", "Architecture", "Hub", "Preset", "Recipe", "preset_with_pooling"]

Pooling = Literal["class", "mean", "both"]

# Mean and standard deviation of ImageNet in 0 … 1.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Architecture:
    """How the network is built.

    Attributes:
        kind: ``vit`` (timm's vision transformer), ``resnet``, ``resnet_trunk``, ``conv_stem_swin`` or
            ``coca_vision``.
        name: timm's name of the network.
        arguments: Construction arguments beyond timm's own for that name.
        swiglu: The blocks have a packed SwiGLU in place of the MLP.
        norm_eps: Epsilon of every layer norm where it is not timm's 1e-6.
        names: Whose parameter names the published file uses: ``timm``, ``dinov2`` (the original code),
            ``hf_dinov2`` or ``hf_vit`` (transformers), ``timm_0_5`` (Swin of that version), ``conch``.
        left_over: Prefixes of tensors in the published file that this encoder does not use.
    """

    kind: Literal["vit", "resnet", "resnet_trunk", "conv_stem_swin", "coca_vision"]
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    swiglu: bool = False
    norm_eps: float | None = None
    names: Literal["timm", "dinov2", "hf_dinov2", "hf_vit", "timm_0_5", "conch"] = "timm"
    left_over: tuple[str, ...] = ("head.", "fc.")


@dataclass(frozen=True)
class Recipe:
    """What happens to a square tile before the network.

    Attributes:
        resize_px: The whole tile is resized to this edge.
        crop_px: Then the middle square of this edge is taken (equal to ``resize_px``: nothing is lost).
        interpolation: Of the resize, with antialias; a tile of ``resize_px`` is left as it is.
        mean: Per channel, of pixels scaled to 0 … 1.
        std: Same.
    """

    resize_px: int
    crop_px: int
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Hub:
    """Where the weights are published.

    Attributes:
        repository: Repository on the Hugging Face hub, ``owner/name``.
        files: File names to try, best first.
        kind: ``model`` or ``dataset``.
    """

    repository: str
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    kind: Literal["model", "dataset"] = "model"


@dataclass(frozen=True)
class Preset:
    """A published tile encoder.

    Attributes:
        key: Its name here, that of TRIDENT where TRIDENT has it.
        title: Its name in print.
        architecture: How the network is built.
        recipe: Preprocessing.
        pooling: ``class`` token, ``mean`` of the patch tokens (of the feature map for convolutional networks
            and Swin), or ``both``, one after the other.
        width: Length of a feature vector.
        parameters: Number of parameters of the network as built here.
        published: Number of parameters as published: exact digits, rounded as ``85.7M``, or as the size of a
            float32 file, ``343MB``; empty if none is.
        published_by: Who publishes that number, or what else the number was compared with.
        unused: Parameters of the published file that the encoder does not use, part of ``published``.
        mpp: Native resolution in µm per pixel; several where the model was trained on several.
        tile_px: Native tile edge at that resolution.
        hub: Where the weights are published; None where only by hand.
        licence: Of the weights.
        commercial: Whether the licence permits commercial use by itself.
        gated: Whether access must be asked for.
        access: One sentence: how to get the weights.
        citation: Paper.
        sha256: Published SHA-256 (or its first digits) of weights files, where someone publishes one.
        verified: What was checked, and against what.
        unverified: What could not be checked without the weights.
        weights_of: Key of the preset whose weights file this one shares; its own by default.
    """

    key: str
    title: str
    architecture: Architecture
    recipe: Recipe
    pooling: Pooling
    width: int
    parameters: int
    published: str
    published_by: str
    mpp: tuple[float, ...]
    tile_px: int
    hub: Hub | None
    licence: str
    commercial: bool
    gated: bool
    access: str
    citation: str
    unused: int = 0
    sha256: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    weights_of: str = ""

    @property
    def weights_key(self) -> str:
        """Key under which the weights stand in a weights folder."""
        return self.weights_of or self.key


def preset_with_pooling(base: Preset, key: str, title: str, pooling: Pooling) -> Preset:
    """The same network and weights, pooled in another way.

    Args:
        base: Preset of a vision transformer that pools its class token or both.
        key: The new key.
        title: The new title.
        pooling: The other pooling.

    Returns:
        The preset, whose weights are those of ``base``.
    """
    from dataclasses import replace

    tokens = base.width // (2 if base.pooling == "both" else 1)
    width = tokens * (2 if pooling == "both" else 1)
    return replace(base, key=key, title=title, pooling=pooling, width=width, weights_of=base.key)
