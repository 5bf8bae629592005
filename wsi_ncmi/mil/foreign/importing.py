"""A checkpoint of another codebase to an aggregator and its head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.base import Aggregator
from wsi_ncmi.mil.config import ModelConfig, build_model
from wsi_ncmi.mil.foreign.clam import looks_like_clam, translate_clam
from wsi_ncmi.mil.foreign.dsmil import looks_like_dsmil, translate_dsmil
from wsi_ncmi.mil.foreign.reading import Tensors, read_tensors
from wsi_ncmi.mil.foreign.translation import Translation
from wsi_ncmi.mil.foreign.transmil import looks_like_transmil, translate_transmil

__all__ = ["ForeignModel", "import_checkpoint"]


@dataclass(frozen=True)
class ForeignModel:
    """An imported model, in evaluation mode, on the CPU.

    Attributes:
        aggregator: Bag → embedding.
        head: Embedding (B, E) → logits (B, C).
        options: What the aggregator was built with.
        num_classes: C; which class is which isn't in a checkpoint.
    """

    aggregator: Aggregator
    head: nn.Linear
    options: ModelConfig
    num_classes: int


def import_checkpoint(path: Path, *, dsmil_value: Literal["linear", "relu"] | None = None) -> ForeignModel:
    """Imports a checkpoint of CLAM, DSMIL or TransMIL; which one is told by its names.

    Every tensor must have its place and every place its tensor; nothing in the file is executed.

    Args:
        path: The checkpoint.
        dsmil_value: What follows DSMIL's value layer (see :func:`translate_dsmil`).

    Raises:
        InputError: The file can't be read, is of none of the three, or doesn't fit the published one.
    """
    translated = _translate(read_tensors(Path(path)), dsmil_value)
    aggregator = build_model(translated.options, translated.in_features, translated.num_classes)
    statistics = {name: getattr(aggregator, name) for name in ("input_mean", "input_scale")}
    aggregator.load_state_dict({**statistics, **translated.aggregator}, strict=True)
    head = aggregator.make_head(translated.num_classes)
    head.load_state_dict(dict(translated.head), strict=True)
    return ForeignModel(aggregator.eval(), head.eval(), translated.options, translated.num_classes)


def _translate(tensors: Tensors, dsmil_value: Literal["linear", "relu"] | None) -> Translation:
    names = tensors.names()
    if looks_like_clam(names):
        return translate_clam(tensors)
    if looks_like_dsmil(names):
        return translate_dsmil(tensors, dsmil_value)
    if looks_like_transmil(names):
        return translate_transmil(tensors)
    raise InputError(
        f"{tensors.place} is no checkpoint of CLAM, DSMIL or TransMIL (it begins with {names[0]!r}); other "
        "models can't be imported."
    )
