"""DSMIL's checkpoints: names of ``MILNet(FCLayer, BClassifier)``.

Key list: dsmil.py of github.com/binli123/dsmil-wsi. The instance layer is ``fc.0`` in ``FCLayer`` and
``fc`` in ``IClassifier``; the query is one layer, or two (``q.0`` and ``q.2``) in the nonlinear form; the
value layer ``v.1`` is there where the value isn't passed as it is.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from wsi_ncmi.mil.config import DsmilConfig, model_config
from wsi_ncmi.mil.foreign.reading import Tensors
from wsi_ncmi.mil.foreign.translation import Translation

__all__ = ["looks_like_dsmil", "translate_dsmil"]


def looks_like_dsmil(names: list[str]) -> bool:
    """Whether these are names of a DSMIL model."""
    return "b_classifier.fcc.weight" in names


def translate_dsmil(tensors: Tensors, value: Literal["linear", "relu"] | None = None) -> Translation:
    """DSMIL's tensors under this package's names.

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
    state = _linear(tensors, first, "instances", classes, width)
    nonlinear = "b_classifier.q.0.weight" in tensors
    if nonlinear:
        state |= _linear(tensors, "b_classifier.q.0", "query.0", None, width)
        queries = len(state["query.0.bias"])
        state |= _linear(tensors, "b_classifier.q.2", "query.2", queries, queries)
    else:
        state |= _linear(tensors, "b_classifier.q", "query.0", None, width)
    valued = "b_classifier.v.1.weight" in tensors
    if valued:
        state |= _linear(tensors, "b_classifier.v.1", "value", width, width)
    head = {
        # The convolution sees C channels of length D at once: a linear layer on them side by side.
        "weight": convolution.flatten(1),
        "bias": tensors.take("b_classifier.fcc.bias", classes),
    }
    tensors.finish()
    kind = value or ("relu" if nonlinear else "linear")
    options = DsmilConfig(
        query="nonlinear" if nonlinear else "linear",
        query_width=len(state["query.0.bias"]),
        value=kind if valued else "identity",
    )
    return Translation(model_config(name="dsmil", dsmil=options), width, classes, state, head)


def _linear(tensors: Tensors, theirs: str, ours: str, rows: int | None, columns: int) -> dict[str, Tensor]:
    weight = tensors.take(f"{theirs}.weight", rows, columns)
    return {f"{ours}.weight": weight, f"{ours}.bias": tensors.take(f"{theirs}.bias", len(weight))}
