"""Mask models from a user's own files, run by the same code as encoders."""

import logging
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from wsi_ncmi.encoders.model_files import OnnxModule, read_torchscript
from wsi_ncmi.encoders.torch_backend import FromPixels, TorchBackend
from wsi_ncmi.encoders.weights_folder import check_listed_file

_LOG = logging.getLogger(__name__)


class _FirstOutput(nn.Module):
    """A network's own output where it gives several: torchvision's segmentation models give a dict."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        given: Any = self.network(pixels)
        if isinstance(given, dict):
            given = given["out"]
        return cast("Tensor", given[0] if isinstance(given, tuple | list) else given)


def mask_backend(
    path: Path, device: torch.device, edge: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> TorchBackend:
    """Loads a mask model.

    Args:
        path: ``.onnx``, or TorchScript.
        device: CPU, or CUDA for TorchScript.
        edge: Edge of its input.
        mean: Of each channel in 0 … 1.
        std: Standard deviation.

    Raises:
        InputError: It can't be read as either.
    """
    check_listed_file(path)
    if path.suffix.lower() == ".onnx":
        network: nn.Module = OnnxModule(path)
    else:
        _LOG.warning("Mask model %s is a program; take such files only from people you trust.", path.name)
        network = read_torchscript(path)
    return TorchBackend(FromPixels(_FirstOutput(network), mean, std), device, "fp32", edge, "bilinear")
