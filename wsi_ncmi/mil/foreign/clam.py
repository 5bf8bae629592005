"""CLAM's checkpoints (``s_<fold>_checkpoint.pt``): names of ``CLAM_SB`` and ``CLAM_MB``.

Key list: models/model_clam.py of github.com/mahmoodlab/CLAM. The attention net is entry 3 of
``attention_net``, or 2 in models made without dropout by earlier versions; the last layer of the plain one
moves likewise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wsi_ncmi.mil.config import ClamConfig, model_config
from wsi_ncmi.mil.foreign.reading import Tensors
from wsi_ncmi.mil.foreign.translation import Translation

__all__ = ["looks_like_clam", "translate_clam"]


def looks_like_clam(names: list[str]) -> bool:
    """Whether these are names of a CLAM model."""
    return "attention_net.0.weight" in names


def translate_clam(tensors: Tensors) -> Translation:
    """CLAM's tensors under this package's names.

    The subtyping flag, the number of sampled instances and the kind of instance loss aren't in a checkpoint;
    they matter for further training alone.

    Raises:
        InputError: A tensor is missing, left over, or of another shape.
    """
    weight = tensors.take("attention_net.0.weight", None, None)
    hidden, in_features = weight.shape
    state = {"projection.weight": weight, "projection.bias": tensors.take("attention_net.0.bias", hidden)}
    gated = any(".attention_a." in name for name in tensors.names())
    net = "attention_net.2" if any(n.startswith("attention_net.2.") for n in tensors.names()) else None
    net = net or "attention_net.3"
    if gated:
        branches = [_linear(tensors, f"{net}.attention_{x}.0", None, hidden) for x in "ab"]
        last = f"{net}.attention_c"
    else:
        branches = [_linear(tensors, f"{net}.module.0", None, hidden)]
        last = f"{net}.module.3" if f"{net}.module.3.weight" in tensors else f"{net}.module.2"
    width = len(branches[0][1])
    state["score.branches.weight"] = torch.cat([weight for weight, _ in branches])
    state["score.branches.bias"] = torch.cat([bias for _, bias in branches])
    state["score.score.weight"], state["score.score.bias"] = _linear(tensors, last, None, width)
    multiple = "classifiers.0.weight" in tensors
    head, classes = _multiple_head(tensors, hidden) if multiple else _single_head(tensors, hidden)
    instances = [_linear(tensors, f"instance_classifiers.{c}", 2, hidden) for c in range(classes)]
    state["instances.weight"] = torch.cat([weight for weight, _ in instances])
    state["instances.bias"] = torch.cat([bias for _, bias in instances])
    tensors.finish()
    options = model_config(
        name="clam_mb" if multiple else "clam_sb", hidden=hidden, attention=width,
        clam=ClamConfig(gated=gated),
    )  # fmt: skip
    return Translation(options, in_features, classes, state, head)


def _linear(tensors: Tensors, name: str, rows: int | None, columns: int) -> tuple[Tensor, Tensor]:
    weight = tensors.take(f"{name}.weight", rows, columns)
    return weight, tensors.take(f"{name}.bias", len(weight))


def _single_head(tensors: Tensors, hidden: int) -> tuple[dict[str, Tensor], int]:
    weight, bias = _linear(tensors, "classifiers", None, hidden)
    return {"weight": weight, "bias": bias}, len(bias)


def _multiple_head(tensors: Tensors, hidden: int) -> tuple[dict[str, Tensor], int]:
    classes = sum(name.startswith("classifiers.") and name.endswith(".bias") for name in tensors.names())
    parts = [_linear(tensors, f"classifiers.{c}", 1, hidden) for c in range(classes)]
    weight = parts[0][0].new_zeros(classes, classes * hidden)
    for c, (own, _) in enumerate(parts):
        weight[c, c * hidden : (c + 1) * hidden] = own[0]
    return {"weight": weight, "bias": torch.cat([bias for _, bias in parts])}, classes
