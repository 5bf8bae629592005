"""What computes a network: PyTorch (CPU or CUDA, plain or compiled), ONNX Runtime or OpenVINO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi._lazy import attach

if TYPE_CHECKING:  # the names below are loaded lazily at run time
    from wsi_ncmi.encoders.backends.base import Backend as Backend
    from wsi_ncmi.encoders.backends.base import Result as Result
    from wsi_ncmi.encoders.backends.choice import build_backend as build_backend
    from wsi_ncmi.encoders.backends.memory import find_batch_size as find_batch_size
    from wsi_ncmi.encoders.backends.memory import is_out_of_memory as is_out_of_memory

_EXPORTS = {
    "Backend": "wsi_ncmi.encoders.backends.base",
    "Result": "wsi_ncmi.encoders.backends.base",
    "build_backend": "wsi_ncmi.encoders.backends.choice",
    "find_batch_size": "wsi_ncmi.encoders.backends.memory",
    "is_out_of_memory": "wsi_ncmi.encoders.backends.memory",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = attach(__name__, _EXPORTS)
