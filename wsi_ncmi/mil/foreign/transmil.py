"""TransMIL's checkpoints, plain or by Lightning: names of ``TransMIL`` with ``nystrom_attention``.

Key list: models/TransMIL.py of github.com/szc19990412/TransMIL and nystrom_attention/nystrom_attention.py of
github.com/lucidrains/nystrom-attention.
"""

from __future__ import annotations

from torch import Tensor

from wsi_ncmi.mil.config import TransMilConfig, model_config
from wsi_ncmi.mil.foreign.reading import Tensors
from wsi_ncmi.mil.foreign.translation import Translation

__all__ = ["looks_like_transmil", "translate_transmil"]

_LAYERS = {"layer1": "first", "layer2": "second"}
_CONVOLUTIONS = {"proj": 7, "proj1": 5, "proj2": 3}


def looks_like_transmil(names: list[str]) -> bool:
    """Whether these are names of a TransMIL model."""
    return "pos_layer.proj.weight" in names


def translate_transmil(tensors: Tensors) -> Translation:
    """TransMIL's tensors under this package's names.

    The number of landmarks isn't in a checkpoint: half the width, as published.

    Raises:
        InputError: A tensor is missing, left over, or of another shape.
    """
    token = tensors.take("cls_token", 1, 1, None)
    width = token.shape[2]
    projection = tensors.take("_fc1.0.weight", width, None)
    state: dict[str, Tensor] = {
        "token": token,
        "projection.weight": projection,
        "projection.bias": tensors.take("_fc1.0.bias", width),
    }
    heads = kernel = None
    for theirs, ours in _LAYERS.items():
        for part in ("weight", "bias"):
            state[f"{ours}.norm.{part}"] = tensors.take(f"{theirs}.norm.{part}", width)
        state[f"{ours}.attention.qkv.weight"] = tensors.take(f"{theirs}.attn.to_qkv.weight", 3 * width, width)
        state[f"{ours}.attention.out.weight"] = tensors.take(f"{theirs}.attn.to_out.0.weight", width, width)
        state[f"{ours}.attention.out.bias"] = tensors.take(f"{theirs}.attn.to_out.0.bias", width)
        residual = tensors.take(f"{theirs}.attn.res_conv.weight", heads, 1, kernel, 1)
        heads, kernel = residual.shape[0], residual.shape[2]
        state[f"{ours}.attention.residual.weight"] = residual
    for position, (name, size) in enumerate(_CONVOLUTIONS.items()):
        ours = f"position.convolutions.{position}"
        state[f"{ours}.weight"] = tensors.take(f"pos_layer.{name}.weight", width, 1, size, size)
        state[f"{ours}.bias"] = tensors.take(f"pos_layer.{name}.bias", width)
    for part in ("weight", "bias"):
        state[f"norm.{part}"] = tensors.take(f"norm.{part}", width)
    weight = tensors.take("_fc2.weight", None, width)
    head = {"weight": weight, "bias": tensors.take("_fc2.bias", len(weight))}
    tensors.finish()
    assert heads is not None
    assert kernel is not None
    options = model_config(
        name="transmil", hidden=width, transmil=TransMilConfig(heads=heads, residual_kernel=kernel)
    )
    return Translation(options, projection.shape[1], len(weight), state, head)
