"""The networks of the presets, built without any download."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from wsi_ncmi.encoders.presets import Architecture


class AttentionPool(nn.Module):
    """Multi-head attention of learned queries over tokens (Yu et al. 2022, CoCa, section 3.2).

    Args:
        width: Width of the queries and of the output.
        tokens: Width of the tokens.
        heads: Attention heads.
        bias: The projections of queries, keys, values and output have one.
    """

    def __init__(self, width: int, tokens: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, width))
        self.attn = nn.MultiheadAttention(width, heads, bias=bias, kdim=tokens, vdim=tokens, batch_first=True)
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens (n, k, tokens) to (n, embed_dim)."""
        tokens = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(tokens.shape[0], -1, -1)
        pooled: Tensor = self.attn(query, tokens, tokens, need_weights=False)[0]
        return pooled[:, 0]


class CocaVision(nn.Module):
    """Vision transformer, attention pool, layer norm: CONCH's image embedding before its projection.

    Args:
        trunk: Transformer that gives all its tokens, the class token among them.
        width: Width of the embedding.
        heads: Heads of the pool.
        bias: The pool's projections have one.
    """

    def __init__(self, trunk: nn.Module, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.trunk = trunk
        tokens = int(trunk.num_features)  # type: ignore[arg-type]
        self.attn_pool_contrast = AttentionPool(width, tokens, heads, bias=bias)
        self.ln_contrast = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (n, 3, px, px) to (n, embed_dim)."""
        pooled: Tensor = self.ln_contrast(self.attn_pool_contrast(self.trunk(pixels)))
        return pooled


class ProjectedVit(nn.Module):
    """The class token through two linear layers, at length 1: KEEP's image embedding (Zhou et al. 2026).

    Args:
        trunk: Transformer that gives all its tokens, the class token first.
        width: Width of the embedding.
    """

    def __init__(self, trunk: nn.Module, width: int) -> None:
        super().__init__()
        self.visual = trunk
        tokens = int(trunk.num_features)  # type: ignore[arg-type]
        self.visual_head = nn.Sequential(nn.Linear(tokens, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (n, 3, px, px) to (n, embed_dim)."""
        return nn.functional.normalize(self.visual_head(self.visual(pixels)[:, 0]), dim=-1)


class ChannelwiseVit(nn.Module):
    """Red, green and blue as images of their own, their class tokens joined (Kapse et al. 2026).

    Args:
        trunk: Transformer of one channel that gives all its tokens, the class token first.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (n, 3, px, px) to (n, 3 · dim)."""
        # Not a view: pixels are stored channels last.
        tokens = self.trunk(pixels.reshape(-1, 1, *pixels.shape[2:]))
        return cast("Tensor", tokens[:, 0].reshape(pixels.shape[0], -1))


class HalfRotary(nn.Module):
    """Rotary positions (Siméoni et al. 2025, DINOv3, section 3.2) rounded as by a file in bfloat16.

    Sine and cosine of 2π · (centre of a patch, -1 … 1) / period, of rows and columns, twice each; every step
    is rounded to bfloat16, as GenBio-PathFM computes them.

    Args:
        edge: Patches of an edge.
        dim: Width of a head, a multiple of 4.
    """

    embed: Tensor

    def __init__(self, edge: int, dim: int) -> None:
        super().__init__()
        half = torch.bfloat16
        periods = 100.0 ** (2 * torch.arange(dim // 4, dtype=half) / (dim // 2))
        centres = 2.0 * (torch.arange(0.5, edge, dtype=half) / edge) - 1.0
        places = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), dim=-1).flatten(0, 1)
        angles = (2 * torch.pi * places[:, :, None] / periods).flatten(1, 2).tile(2)
        self.register_buffer("embed", torch.cat([angles.sin(), angles.cos()], -1).float(), persistent=False)

    def get_embed(self, shape: object = None) -> Tensor:
        """Sines and cosines, (patches, 2 · dim); the shape is that of the network's own size."""
        return self.embed


class ConvStem(nn.Module):
    """Two strided 3 × 3 convolutions with batch norm, then 1 × 1 to the embedding (Wang et al. 2022, fig. 3).

    Takes the place of timm's patch embedding: its patches are 4 px, its output is channels last.

    Args:
        img_size: Edge of the input in pixels, or height and width.
        patch_size: Must be 4.
        in_chans: Channels of the input.
        embed_dim: Channels of the output, a multiple of 8.
        norm_layer: Makes the norm after the embedding; None for none.
        more: Other arguments that timm passes to a patch embedding; the network checks the sizes.

    Raises:
        ValueError: Another patch size, or ``embed_dim`` not a multiple of 8.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
        **more: Any,
    ) -> None:
        super().__init__()
        if patch_size != 4 or embed_dim % 8:
            raise ValueError(f"a stem has patches of 4 px and 8·k channels, not {patch_size} and {embed_dim}")
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (height, width)
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (height // patch_size, width // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        layers: list[nn.Module] = []
        before = in_chans
        for after in (embed_dim // 8, embed_dim // 4):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after)]
            layers.append(nn.ReLU())
            before = after
        self.proj = nn.Sequential(*layers, nn.Conv2d(before, embed_dim, 1))
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (n, 3, px, px) to (n, px / 4, px / 4, embed_dim)."""
        return cast("Tensor", self.norm(self.proj(pixels).permute(0, 2, 3, 1)))


class ResidualTrunk(nn.Module):
    """The mean over the feature map of a ResNet's third stage: 1024 values of a ResNet-50 (CLAM's).

    The names of its tensors are those of the whole network.
    """

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3"):
            self.add_module(name, whole.get_submodule(name))

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (n, 3, px, px) to (n, channels)."""
        for module in self.children():
            pixels = cast("Tensor", module(pixels))
        return pixels.mean(dim=(2, 3))


# Kinds without buffers outside their state dict: these can be built without memory and filled later.
_WITHOUT_MEMORY = ("vit", "coca_vision", "coca_vision_768", "projected_vit", "channelwise_vit")


def build_architecture(architecture: Architecture, *, meta: bool | None = None) -> nn.Module:
    """Builds a network without its classifier; its tensors hold no weights yet.

    Args:
        architecture: The description.
        meta: Build on the ``meta`` device (no memory); by default wherever the weights can be put in later.

    Returns:
        The network; its state dict has the names that a file imported here has. A ``vit`` maps
        (n, 3, px, px) to tokens (n, prefix + patches, dim), any other to vectors (n, embed_dim).
    """
    without = architecture.kind in _WITHOUT_MEMORY if meta is None else meta
    with torch.random.fork_rng(devices=[]), torch.device("meta" if without else "cpu"):
        network = _BUILDERS[architecture.kind](architecture)
    if isinstance(network, ChannelwiseVit) and meta is not True:  # no weights file holds its positions
        trunk: Any = network.trunk
        trunk.rope = HalfRotary(
            trunk.patch_embed.grid_size[0], trunk.embed_dim // trunk.blocks[0].attn.num_heads
        )
    return network


def _timm(architecture: Architecture, **more: Any) -> nn.Module:
    import timm
    from timm.layers.mlp import SwiGLUPacked

    arguments: dict[str, Any] = {**architecture.arguments, **more}
    if architecture.swiglu:
        arguments |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    if architecture.norm_eps is not None:
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=architecture.norm_eps)
    model: nn.Module = timm.create_model(architecture.name, pretrained=False, num_classes=0, **arguments)
    return model


def _vit(architecture: Architecture) -> nn.Module:
    # All tokens come out, normalised: pooling is the business of TileNetwork. Weights are put in later.
    return _timm(architecture, global_pool="", weight_init="skip")


_BUILDERS: dict[str, Callable[[Architecture], nn.Module]] = {
    "vit": _vit,
    "resnet": _timm,
    "resnet_trunk": lambda found: ResidualTrunk(_timm(found)),
    "conv_stem_swin": lambda found: _timm(found, embed_layer=ConvStem),
    "coca_vision": lambda found: CocaVision(_vit(found), width=512, heads=8),
    "coca_vision_768": lambda found: CocaVision(_vit(found), width=768, heads=8, bias=False),
    "projected_vit": lambda found: ProjectedVit(_vit(found), width=768),
    "channelwise_vit": lambda found: ChannelwiseVit(_timm(found, global_pool="")),
}
