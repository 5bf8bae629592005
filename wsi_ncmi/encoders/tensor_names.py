"""From the tensor names of published files to ours, exactly: no name is guessed, none is dropped silently."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

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
_BEIT3 = (
    (r"^beit3\.", ""),
    (r"^vision_embed\.cls_token$", "cls_token"),
    (r"^vision_embed\.proj\.", "patch_embed.proj."),
    (r"^encoder\.(layers\.)?", lambda at: "blocks." if at[1] else ""),
    (r"\.A\.", "."),  # of images; B is of texts
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.self_attn\.inner_attn_ln\.", ".attn.norm."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.", ".attn."),
    (r"\.ffn\.ffn_layernorm\.", ".mlp.norm."),
    (r"\.ffn\.", ".mlp."),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"^layer_norm\.", "norm."),
)
_GENBIO = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"^", "trunk."),
)


def to_our_names(names: str, state: _State, network: nn.Module) -> dict[str, Tensor]:
    """Renames the tensors of a published file to those of our network.

    A file that has our names already (it was imported) comes back unchanged; its positions, too, unless they
    are for another size of tile. Names that are not known stay as they are, so that the strict load that
    follows reports them.

    Args:
        names: Names that the file may use, as in
            :class:`~wsi_ncmi.encoders.presets.Architecture`.
        state: Tensors by published name.
        network: The network as built, possibly on the ``meta`` device.

    Returns:
        Tensors by our name.
    """
    if network.state_dict().keys() <= state.keys():
        return _positions(dict(state), network) if names == "dinov2" else dict(state)
    return _MAPS[names](state, network)


def _dinov2(state: _State, network: nn.Module) -> dict[str, Tensor]:
    return _positions(_renamed(state, _DINOV2), network)


def _hf(state: _State, network: nn.Module) -> dict[str, Tensor]:
    # Hibou's own code has DINOv2's names, its copy for transformers those of transformers.
    if "patch_embed.proj.weight" in state:
        return _dinov2(state, network)
    renamed = _renamed(state, _HF)
    _join_qkv(renamed, network, "attention.attention.{}", ("query", "key", "value"))
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


def _conch_v15(state: _State, network: nn.Module) -> dict[str, Tensor]:
    pool = "attn_pool_contrast."
    ours = {
        key.replace(f"{pool}to_q.weight", f"{pool}attn.q_proj_weight").replace(
            f"{pool}to_out.weight", f"{pool}attn.out_proj.weight"
        ): value
        for key, value in state.items()
    }
    if f"{pool}to_kv.weight" in ours:
        both = ours.pop(f"{pool}to_kv.weight").chunk(2)
        ours |= {f"{pool}attn.{part}_proj_weight": each for part, each in zip("kv", both, strict=True)}
    given = ours.get("trunk.pos_embed")
    if (
        given is not None
        and given.ndim == 3
        and round((given.shape[1] - 1) ** 0.5) ** 2 == given.shape[1] - 1
    ):
        edge = round((network.state_dict()["trunk.pos_embed"].shape[1] - 1) ** 0.5)
        ours["trunk.pos_embed"] = _resampled(given, edge)
    return ours


def _resampled(given: Tensor, edge: int) -> Tensor:
    """Positions as the publisher resamples them: to 14 × 14 on reading, to the tile's at every forward pass.

    The second step takes DINO's scale, a tenth of a patch larger than the whole number.
    """
    side = round((given.shape[1] - 1) ** 0.5)
    image = given[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if side != 14:
        image = nn.functional.interpolate(image, size=(14, 14), mode="bilinear", align_corners=False)
    if edge != 14:
        scale = (edge + 0.1) / 14
        image = nn.functional.interpolate(image, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([given[:, :1], image.permute(0, 2, 3, 1).flatten(1, 2).to(given.dtype)], dim=1)


def _beit3(state: _State, network: nn.Module) -> dict[str, Tensor]:
    renamed = _renamed({key: value for key, value in state.items() if ".B." not in key}, _BEIT3)
    _join_qkv(renamed, network, "attn.{}_proj", "qkv")
    # The first two of fairseq's positions belong to no token.
    if (places := renamed.pop("embed_positions.weight", None)) is not None:
        renamed["pos_embed"] = places[None, 2:]
    return renamed


def _keep(state: _State, network: nn.Module) -> dict[str, Tensor]:
    return {re.sub(r"\.ls([12])\.weight$", r".ls\1.gamma", key): value for key, value in state.items()}


def _genbio(state: _State, network: nn.Module) -> dict[str, Tensor]:
    # The periods are computed.
    return _renamed({key: value for key, value in state.items() if not key.endswith(".periods")}, _GENBIO)


def _join_qkv(state: dict[str, Tensor], network: nn.Module, form: str, parts: Iterable[str]) -> None:
    """Makes one tensor of a block's query, key and value, whose names ``form`` gives."""
    for block in range(len(network.get_submodule("blocks")._modules)):
        for kind in ("weight", "bias"):
            names = [f"blocks.{block}.{form.format(part)}.{kind}" for part in parts]
            if all(name in state for name in names):
                state[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([state.pop(name) for name in names])


def _renamed(state: _State, rules: Sequence[tuple[str, Any]]) -> dict[str, Tensor]:
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
    "timm": lambda state, _: dict(state),
    "dinov2": _dinov2,
    "hf_dinov2": _hf,
    "hf_vit": _hf,
    "timm_0_5": _swin,
    "conch": lambda state, _: {key.removeprefix("visual."): value for key, value in state.items()},
    "conch_v15": _conch_v15,
    "beit3": _beit3,
    "keep": _keep,
    "genbio": _genbio,
}
