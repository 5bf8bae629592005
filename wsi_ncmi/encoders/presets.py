"""The published tile encoders, read from ``presets.yaml``; nothing here imports torch."""

import difflib
from collections.abc import Hashable
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter

from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.errors import InputError

__all__ = [
    "Architecture", "Hub", "Preset", "Recipe", "find_preset", "near_presets", "presets", "read_presets",
]  # fmt: skip

Count = Annotated[int, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


@configclass
class Architecture:
    """Construction of a network.

    Attributes:
        kind: ``vit`` (timm's vision transformer), ``resnet``, ``resnet_trunk``, ``conv_stem_swin``,
            ``coca_vision`` (CONCH), ``coca_vision_768`` (CONCH v1.5), ``projected_vit`` (KEEP) or
            ``channelwise_vit`` (GenBio-PathFM).
        name: timm's name of the network.
        arguments: Construction arguments beyond timm's own for that name.
        swiglu: The blocks have a packed SwiGLU in place of the MLP.
        norm_eps: Epsilon of every layer norm where it is not timm's 1e-6.
        names: Parameter names of the published file: ``timm``, ``dinov2`` (the original code),
            ``hf_dinov2`` or ``hf_vit`` (transformers), ``timm_0_5`` (Swin of that version), ``conch``,
            ``conch_v15``, ``beit3``, ``keep``, ``genbio``.
        left_over: Prefixes of tensors in the published file that this encoder does not use.
    """

    kind: Literal[
        "vit", "resnet", "resnet_trunk", "conv_stem_swin", "coca_vision", "coca_vision_768", "projected_vit",
        "channelwise_vit",
    ]  # fmt: skip
    name: Text
    arguments: dict[str, Any] = Field(default_factory=dict)
    swiglu: bool = False
    norm_eps: float | None = None
    names: Literal[
        "timm", "dinov2", "hf_dinov2", "hf_vit", "timm_0_5", "conch", "conch_v15", "beit3", "keep", "genbio"
    ] = "timm"
    left_over: tuple[str, ...] = ("head.", "fc.")


@configclass
class Recipe:
    """Preprocessing of a square tile.

    Attributes:
        resize_px: The whole tile is resized to this edge.
        crop_px: Then the middle square of this edge is taken (equal to ``resize_px``: nothing is lost).
        interpolation: Of the resize, with antialias; a tile of ``resize_px`` is left as it is.
        mean: Per channel, of pixels scaled to 0 … 1.
        std: Same.
    """

    resize_px: Count
    crop_px: Count
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@configclass
class Hub:
    """The published weights of a preset.

    Attributes:
        repository: Repository on the Hugging Face hub, ``owner/name``.
        files: File names to try, best first.
        kind: ``model`` or ``dataset``.
    """

    repository: Text
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    kind: Literal["model", "dataset"] = "model"


@configclass
class Preset:
    """A published tile encoder.

    Attributes:
        key: Its name here, that of TRIDENT where TRIDENT has it.
        title: Its name in print.
        architecture: Construction of the network.
        recipe: Preprocessing.
        pooling: ``class`` token, ``mean`` of the patch tokens (of the feature map for convolutional networks
            and Swin), or ``both``, one after the other.
        embed_dim: Length of a feature vector.
        parameters: Number of parameters of the network as built here.
        published: Number of parameters as published: exact digits, rounded as ``85.7M``, or as the size of a
            float32 file, ``343MB``; empty if none is.
        published_by: Source of that number, or what else the number was compared with.
        mpp: Native resolution in µm per pixel; several where the model was trained on several.
        tile_px: Native tile edge at that resolution.
        fixed_grid: The publisher's card takes no other resolution or tile edge.
        hub: The published weights; None where they can only be downloaded by hand.
        licence: Of the weights.
        commercial: The licence permits commercial use by itself.
        gated: Access must be asked for.
        access: One sentence: how to get the weights.
        citation: Paper.
        unused: Parameters of the published file that the encoder does not use, part of ``published``.
        sha256: Published SHA-256 (or its first digits) of weights files, where someone publishes one.
        verified: Facts that were checked, and against what.
        unverified: Facts that could not be checked without the weights.
        weights_of: Key of the preset whose weights file this one shares; its own by default.
    """

    key: Text
    title: Text
    architecture: Architecture
    recipe: Recipe
    pooling: Literal["class", "mean", "both"]
    embed_dim: Count
    parameters: Count
    published: str
    published_by: str
    mpp: tuple[Annotated[float, Field(gt=0)], ...]
    tile_px: Count
    hub: Hub | None
    licence: Text
    commercial: bool
    gated: bool
    access: Text
    citation: Text
    fixed_grid: bool = False
    unused: Annotated[int, Field(ge=0)] = 0
    sha256: tuple[str, ...] = ()
    verified: tuple[str, ...]
    unverified: tuple[str, ...] = ()
    weights_of: str = ""

    @property
    def weights_key(self) -> str:
        """Key under which the weights are in a weights folder."""
        return self.weights_of or self.key


@cache
def presets() -> dict[str, Preset]:
    """Every preset by its key, in the order of ``presets.yaml``."""
    return read_presets((resources.files("wsi_ncmi.encoders") / "presets.yaml").read_text("utf-8"))


def read_presets(text: str) -> dict[str, Preset]:
    """Reads presets strictly: no key twice, no unknown key, no value of another type.

    Args:
        text: YAML, a mapping of keys to the fields of :class:`Preset`.

    Raises:
        ValueError: An entry is wrong (pydantic's ``ValidationError``), twice there, or shares the weights of
            a preset that is not there.
        yaml.YAMLError: It is no YAML.
    """
    content = yaml.load(text, _StrictLoader)  # noqa: S506  # a safe loader, which refuses double keys
    entries = {key: {"key": key, **facts} for key, facts in content.items()}
    found = TypeAdapter(dict[str, Preset]).validate_python(entries)
    for preset in found.values():
        if preset.weights_key not in found:
            raise ValueError(f"{preset.key} shares the weights of {preset.weights_of}, which is no preset")
    return found


# libyaml's loader reads the file in a tenth of the time; not every build of PyYAML has it.
class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"{twice[0]!r} is there twice{node.start_mark}")
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]


def find_preset(key: str) -> Preset:
    """The preset of a key.

    Raises:
        InputError: There is none, with the nearest keys.
    """
    if key in presets():
        return presets()[key]
    if key == "descriptor" or ":" in key:
        known = "it needs no weights" if key == "descriptor" else "its facts are those of its own code"
        raise InputError(
            f"The encoder {key!r} is no preset: {known}, and tiles are of 256 px at 0.5 µm per pixel unless "
            "--mpp and --tile-px say otherwise; wsi-ncmi encoders list names the presets."
        )
    near = near_presets(key)
    hint = f"did you mean {' or '.join(near)}?" if near else "wsi-ncmi encoders list names them."
    raise InputError(f"There is no preset {key!r}; {hint}")


def near_presets(key: str, cutoff: float = 0.6) -> list[str]:
    """Keys like ``key``, nearest first, whatever its case and however its words are joined.

    Args:
        key: The key as written.
        cutoff: Least likeness, 0 to 1; a key that begins like ``key`` is always near.
    """
    plain = {_plain(known): known for known in presets()}
    found = [plain[match] for match in difflib.get_close_matches(_plain(key), plain, n=3, cutoff=cutoff)]
    starts = [known for text, known in plain.items() if _plain(key) and text.startswith(_plain(key))]
    return list(dict.fromkeys((*starts, *found)))[:3]


def _plain(key: str) -> str:
    return "".join(sign for sign in key.lower() if sign.isalnum())
