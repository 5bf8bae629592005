"""TorchScript and ONNX of a member, for programs without this package; each is compared with the model.

The exported function takes the tile embeddings of one slide, float32 (N, D) with any N ≥ 1, and gives the
class probabilities (C,) before calibration and the attention (N,).
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.extras import require
from wsi_ncmi.mil import BagBatch
from wsi_ncmi.training import TrainedModel

__all__ = ["PORTABLE_TOLERANCE", "export_portable"]

PORTABLE_TOLERANCE = 1e-5
"""Largest difference of a probability or an attention weight that passes for equality."""

_TRACED_TILES = 37
_COMPARED_TILES = (1, 2, 37, 500)

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


class _OneSlide(nn.Module):
    """The model as a function of plain tensors."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.aggregator, self.criterion = model.aggregator, model.criterion

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        output = self.aggregator(_SingleBag(features))
        return self.criterion.predict_proba(output.embedding)[0], output.attention


class _SingleBag(BagBatch):
    """One bag whose every derived tensor follows from the features, so that a trace holds for any size."""

    def __init__(self, features: Tensor) -> None:
        lengths = torch.ones_like(features[:, 0], dtype=torch.int64).sum().view(1)
        for name, value in (("features", features), ("lengths", lengths), ("coordinates", None)):
            object.__setattr__(self, name, value)
        self.__dict__["sizes"] = [features.shape[0]]
        self.__dict__["bag_index"] = torch.zeros_like(features[:, 0], dtype=torch.int64)


def export_portable(model: TrainedModel, kind: Literal["torchscript", "onnx"]) -> tuple[bytes, float]:
    """Exports a member and compares it on random slides of 1, 2, 37 and 500 tiles.

    Args:
        model: The member, on the CPU.
        kind: The form.

    Returns:
        The file's bytes and the largest difference from the model's own output.

    Raises:
        InputError: The aggregator can't be exported in this form, or the exported one gives other numbers.
    """
    name = str(model.config["model"]["name"])
    try:
        # The exporters print whole graphs when they fail.
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            content, run = _torchscript(model) if kind == "torchscript" else _onnx(model)
            difference = _largest_difference(model, run)
    except InputError:
        raise
    except Exception as error:  # exporters raise whatever they stumble over
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"The aggregator {name} can't be exported as {kind} ({type(error).__name__}: {reason}); "
            f"export the "
            f"bundle without --{kind}."
        ) from error
    if not difference <= PORTABLE_TOLERANCE:
        raise InputError(
            f"The {kind} form of the aggregator {name} differs from the model by {difference:.2g}, so "
            f"it was not "
            f"written; export the bundle without --{kind}."
        )
    return content, difference


def _frozen(model: TrainedModel) -> nn.Module:
    """A copy without gradients, so that programs that load it need no ``no_grad``."""
    return copy.deepcopy(_OneSlide(model)).eval().requires_grad_(requires_grad=False)


def _example(width: int, tiles: int) -> Tensor:
    return torch.randn(tiles, width, generator=torch.Generator().manual_seed(tiles))


def _torchscript(model: TrainedModel) -> tuple[bytes, Callable[[NDArray[np.float32]], Outputs]]:
    module = _frozen(model)
    jit: Any = torch.jit
    traced = jit.trace(module, (_example(model.aggregator.in_features, _TRACED_TILES),), check_trace=False)
    buffer = io.BytesIO()
    jit.save(traced, buffer)
    buffer.seek(0)
    loaded = jit.load(buffer)

    def run(features: NDArray[np.float32]) -> Outputs:
        probabilities, attention = loaded(torch.from_numpy(features))
        return probabilities.numpy(), attention.numpy()

    return buffer.getvalue(), run


def _onnx(model: TrainedModel) -> tuple[bytes, Callable[[NDArray[np.float32]], Outputs]]:
    require(("onnx",), "ONNX export")  # torch's exporter takes onnx
    import onnxruntime

    module = _frozen(model)
    buffer = io.BytesIO()
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        exporter: Any = torch.onnx
        exporter.export(
            module, (_example(model.aggregator.in_features, _TRACED_TILES),), buffer, dynamo=False,
            input_names=["features"], output_names=["probabilities", "attention"],
            dynamic_axes={"features": {0: "tiles"}, "attention": {0: "tiles"}}, opset_version=17,
        )  # fmt: skip
    finally:
        log.setLevel(level)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])

    def run(features: NDArray[np.float32]) -> Outputs:
        found: list[Any] = session.run(["probabilities", "attention"], {"features": features})
        return found[0], found[1]

    return buffer.getvalue(), run


def _largest_difference(model: TrainedModel, run: Callable[[NDArray[np.float32]], Outputs]) -> float:
    worst = 0.0
    for tiles in _COMPARED_TILES:
        features = _example(model.aggregator.in_features, tiles).numpy()
        probabilities, attention = model.predict(features)
        theirs = run(features)
        if theirs[0].shape != probabilities.shape or theirs[1].shape != attention.shape:
            return float("inf")
        worst = max(
            worst,
            float(np.abs(theirs[0] - probabilities).max()),
            float(np.abs(theirs[1] - attention).max()),
        )
    return worst
