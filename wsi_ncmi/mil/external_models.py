"""Checkpoints of other codebases as models of this one, where the architecture is the same.

Names of tensors: models/model_clam.py of github.com/mahmoodlab/CLAM; dsmil.py of
github.com/binli123/dsmil-wsi; models/TransMIL.py of github.com/szc19990412/TransMIL with
nystrom_attention/nystrom_attention.py of github.com/lucidrains/nystrom-attention; src/models/abmil.py and
layers.py of github.com/mahmoodlab/MIL-Lab, whose pretrained ABMIL is FEATHER.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.base import Aggregator
from wsi_ncmi.mil.config import ClamConfig, DsmilConfig, ModelConfig, TransMilConfig
from wsi_ncmi.mil.external_checkpoints import Tensors, read_tensors
from wsi_ncmi.mil.registry import build_aggregator, model_config


@dataclass(frozen=True)
class Translation:
    """The numbers of an external model under this package's names.

    Attributes:
        config: The aggregator that they fit.
        in_features: Width D of the instance features.
        num_classes: C; 0 where there is no head.
        aggregator: State of the aggregator without its input statistics.
        head: State of the linear head on the embedding: ``weight`` (C, E) and ``bias`` (C,), or empty.
    """

    config: ModelConfig
    in_features: int
    num_classes: int
    aggregator: Mapping[str, Tensor]
    head: Mapping[str, Tensor]


def translate_clam(tensors: Tensors) -> Translation:
    """Tensors of ``CLAM_SB`` and ``CLAM_MB`` (``s_<fold>_checkpoint.pt``) under this package's names.

    The attention net is entry 3 of ``attention_net``, or 2 in models made without dropout by earlier
    versions; the last layer of the plain one moves likewise.

    The subtyping flag, the number of sampled instances and the kind of instance loss aren't in a checkpoint;
    they matter only when training is continued.

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
    config = model_config(
        name="clam_mb" if multiple else "clam_sb", hidden=hidden, attention=width,
        clam=ClamConfig(gated=gated),
    )  # fmt: skip
    return Translation(config, in_features, classes, state, head)


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


def translate_dsmil(tensors: Tensors, value: Literal["linear", "relu"] | None = None) -> Translation:
    """Tensors of DSMIL's ``MILNet(FCLayer, BClassifier)`` under this package's names.

    The instance layer is ``fc.0`` in ``FCLayer`` and ``fc`` in ``IClassifier``; the query is one layer, or
    two (``q.0`` and ``q.2``) in the nonlinear form; the value layer ``v.1`` is there where the value isn't
    passed as it is.

    Args:
        tensors: The checkpoint.
        value: What follows the value layer, which the names don't tell: nothing, or a ReLU. None takes the
            ReLU beside the nonlinear query and nothing beside the linear one, as the two published versions.

    Raises:
        InputError: A tensor is missing, left over, or of another shape.
    """
    convolution = tensors.take("b_classifier.fcc.weight", None, None, None)
    classes, _, width = convolution.shape
    first = "i_classifier.fc.0" if "i_classifier.fc.0.weight" in tensors else "i_classifier.fc"
    state = _renamed_linear(tensors, first, "instances", classes, width)
    nonlinear = "b_classifier.q.0.weight" in tensors
    if nonlinear:
        state |= _renamed_linear(tensors, "b_classifier.q.0", "query.0", None, width)
        queries = len(state["query.0.bias"])
        state |= _renamed_linear(tensors, "b_classifier.q.2", "query.2", queries, queries)
    else:
        state |= _renamed_linear(tensors, "b_classifier.q", "query.0", None, width)
    valued = "b_classifier.v.1.weight" in tensors
    if valued:
        state |= _renamed_linear(tensors, "b_classifier.v.1", "value", width, width)
    head = {
        # The convolution sees C channels of length D at once: a linear layer on them side by side.
        "weight": convolution.flatten(1),
        "bias": tensors.take("b_classifier.fcc.bias", classes),
    }
    tensors.finish()
    kind = value or ("relu" if nonlinear else "linear")
    settings = DsmilConfig(
        query="nonlinear" if nonlinear else "linear",
        query_width=len(state["query.0.bias"]),
        value=kind if valued else "identity",
    )
    return Translation(model_config(name="dsmil", dsmil=settings), width, classes, state, head)


def _renamed_linear(
    tensors: Tensors, theirs: str, ours: str, rows: int | None, columns: int
) -> dict[str, Tensor]:
    weight, bias = _linear(tensors, theirs, rows, columns)
    return {f"{ours}.weight": weight, f"{ours}.bias": bias}


_LAYERS = {"layer1": "first", "layer2": "second"}
_CONVOLUTIONS = {"proj": 7, "proj1": 5, "proj2": 3}


def translate_transmil(tensors: Tensors) -> Translation:
    """Tensors of ``TransMIL``, plain or by Lightning, under this package's names.

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
    config = model_config(
        name="transmil", hidden=width, transmil=TransMilConfig(heads=heads, residual_kernel=kernel)
    )
    return Translation(config, projection.shape[1], len(weight), state, head)


def translate_abmil(tensors: Tensors) -> Translation:
    """Tensors of MIL-Lab's ``ABMIL`` with one layer before the attention, such as FEATHER's.

    Raises:
        InputError: A tensor is missing, left over, or of another shape.
    """
    weight = tensors.take("patch_embed.0.weight", None, None)
    hidden, in_features = weight.shape
    state = {"projection.weight": weight, "projection.bias": tensors.take("patch_embed.0.bias", hidden)}
    gated = "global_attn.attention_c.weight" in tensors
    names = ["attention_a.0", "attention_b.0"] if gated else ["module.0"]
    branches = [_linear(tensors, f"global_attn.{name}", None, hidden) for name in names]
    width = len(branches[0][1])
    state["branches.weight"] = torch.cat([weight for weight, _ in branches])
    state["branches.bias"] = torch.cat([bias for _, bias in branches])
    last = f"global_attn.{'attention_c' if gated else 'module.3'}"
    state["score.weight"], state["score.bias"] = _linear(tensors, last, 1, width)
    head: dict[str, Tensor] = {}
    if "classifier.weight" in tensors:
        head["weight"], head["bias"] = _linear(tensors, "classifier", None, hidden)
    tensors.finish()
    config = model_config(name="abmil" if gated else "abmil_plain", hidden=hidden, attention=width)
    return Translation(config, in_features, len(head.get("bias", ())), state, head)


@dataclass(frozen=True)
class ExternalModel:
    """An imported model, in evaluation mode, on the CPU.

    Attributes:
        aggregator: Bag → embedding.
        head: Embedding (B, E) → logits (B, C).
        config: Config of the aggregator.
        num_classes: C; which class is which isn't in a checkpoint.
    """

    aggregator: Aggregator
    head: nn.Linear
    config: ModelConfig
    num_classes: int


def import_checkpoint(path: Path, *, dsmil_value: Literal["linear", "relu"] | None = None) -> ExternalModel:
    """Imports a checkpoint of CLAM, DSMIL, TransMIL or MIL-Lab's ABMIL; which one is told by its names.

    Every tensor must have its place and every place its tensor; nothing in the file is executed.

    Args:
        path: The checkpoint.
        dsmil_value: What follows DSMIL's value layer (see :func:`translate_dsmil`).

    Raises:
        InputError: The file can't be read, is of none of these, has no head, or doesn't fit the published
            one.
    """
    translated = translate(read_tensors(Path(path)), dsmil_value)
    if not translated.head:
        raise InputError(f"{path} has no classifier to predict with; train from it with --init.")
    aggregator = build_aggregator(translated.config, translated.in_features, translated.num_classes)
    statistics = {name: getattr(aggregator, name) for name in ("input_mean", "input_scale")}
    aggregator.load_state_dict({**statistics, **translated.aggregator}, strict=True)
    head = aggregator.make_head(translated.num_classes)
    head.load_state_dict(dict(translated.head), strict=True)
    return ExternalModel(aggregator.eval(), head.eval(), translated.config, translated.num_classes)


def translate(tensors: Tensors, dsmil_value: Literal["linear", "relu"] | None = None) -> Translation:
    """A checkpoint under this package's names; which codebase it is of is told by its own.

    Raises:
        InputError: It is of none that are known, or doesn't fit the published architecture.
    """
    if "attention_net.0.weight" in tensors:
        return translate_clam(tensors)
    if "b_classifier.fcc.weight" in tensors:
        return translate_dsmil(tensors, dsmil_value)
    if "pos_layer.proj.weight" in tensors:
        return translate_transmil(tensors)
    if "patch_embed.0.weight" in tensors and any(n.startswith("global_attn.") for n in tensors.names()):
        return translate_abmil(tensors)
    first = tensors.names()[0]
    raise InputError(
        f"{tensors.place} is no checkpoint of CLAM, DSMIL, TransMIL or MIL-Lab's ABMIL (it begins with "
        f"{first!r}); other models can't be imported."
    )
