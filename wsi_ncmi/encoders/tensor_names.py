"""From the tensor names of published files to ours, exactly: no name is guessed, none is dropped silently."""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

_State = Mapping[str, Tensor]

# In the order of application; each is a whole published name or a fixed part of one.
_DINOV2 = (
    (r"^backbone\.", ""),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # blocks saved in chunks
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"^register_tokens$", "reg_token"),
)
_HF = (
    (r"^(vit|dinov2|dinov2_with_registers)\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.(layernorm_before|norm1)\.", ".norm1."),
    (r"\.(layernorm_after|norm2)\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.(intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"^layernorm\.", "norm."),
)


def to_our_names(names: str, state: _State, network: nn.Module) -> dict[str, Tensor]:
    """Renames the tensors of a published file to those of our network.

    A file that has our names already (it was imported) comes back unchanged; its positions, too, unless they
    are for another size of tile. Names that are not known stay as they are, so that the strict load that
    follows reports them.

    Args:
        names: Names that the file may use: ``timm``, ``dinov2``, ``hf_dinov2``, ``hf_vit``, ``timm_0_5`` or
            ``conch``.
        state: Tensors by published name.
        network: The network as built, possibly on the ``meta`` device.

    Returns:
        Tensors by our name.
    """
    if network.state_dict().keys() <= state.keys():
        return _positions(dict(state), network) if names == "dinov2" else dict(state)
    return _MAPS[names](state, network)


def _timm(state: _State, network: nn.Module) -> dict[str, Tensor]:
    return dict(state)


def _dinov2(state: _State, network: nn.Module) -> dict[str, Tensor]:
    return _positions(_renamed(state, _DINOV2), network)


def _hf(state: _State, network: nn.Module) -> dict[str, Tensor]:
    # Hibou's own code has DINOv2's names, its copy for transformers those of transformers.
    if "patch_embed.proj.weight" in state:
        return _dinov2(state, network)
    renamed = _renamed(state, _HF)
    for block in range(len(network.get_submodule("blocks")._modules)):
        for kind in ("weight", "bias"):
            parts = [
                f"blocks.{block}.attention.attention.{part}.{kind}" for part in ("query", "key", "value")
            ]
            if all(part in renamed for part in parts):
                renamed[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([renamed.pop(part) for part in parts])
    return _positions(renamed, network, antialias=False)


def _swin(state: _State, network: nn.Module) -> dict[str, Tensor]:
    # Buffers that are computed are left out; the reduction stood at the end of a stage, now at the beginning.
    kept = {
        key: value
        for key, value in state.items()
        if not key.endswith(("relative_position_index", "attn_mask"))
    }
    return {
        re.sub(r"^layers\.(\d+)\.downsample\.", lambda at: f"layers.{int(at[1]) + 1}.downsample.", key): value
        for key, value in kept.items()
    }


def _conch(state: _State, network: nn.Module) -> dict[str, Tensor]:
    return {key.removeprefix("visual."): value for key, value in state.items()}


def _renamed(state: _State, rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[key if name in renamed else name] = value  # a second one is reported, too
    return renamed


def _positions(state: dict[str, Tensor], network: nn.Module, *, antialias: bool = True) -> dict[str, Tensor]:
    """Fits positions: the class token's own is added to it where ours has none, the grid to our size."""
    ours = network.state_dict()["pos_embed"]
    given = state.get("pos_embed")
    if given is None or given.ndim != 3 or given.shape == ours.shape:
        return state
    has_class = not bool(getattr(network, "no_embed_class", False))
    alone = round(given.shape[1] ** 0.5) ** 2 == given.shape[1]  # a square has no place for the class token
    first, grid = (None, given) if alone else (given[:, :1], given[:, 1:])
    edge, wanted = (round(count**0.5) for count in (grid.shape[1], ours.shape[1] - has_class))
    if edge**2 != grid.shape[1] or "cls_token" not in state or (first is None and has_class):
        return state  # not what is known: the strict load says so
    if edge != wanted:
        # timm (with antialias) and transformers (without) do this at every forward pass.
        image = grid.float().reshape(1, edge, edge, -1).permute(0, 3, 1, 2)
        image = nn.functional.interpolate(
            image, size=(wanted, wanted), mode="bicubic", align_corners=False, antialias=antialias
        )
        grid = image.permute(0, 2, 3, 1).flatten(1, 2).to(given.dtype)
    if first is None:
        return {**state, "pos_embed": grid}
    if has_class:
        return {**state, "pos_embed": torch.cat([first, grid], dim=1)}
    return {**state, "cls_token": state["cls_token"] + first, "pos_embed": grid}


_MAPS: dict[str, Callable[[_State, nn.Module], dict[str, Tensor]]] = {
    "timm": _timm,
    "dinov2": _dinov2,
    "hf_dinov2": _hf,
    "hf_vit": _hf,
    "timm_0_5": _swin,
    "conch": _conch,
}
