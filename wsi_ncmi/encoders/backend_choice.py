"""The choice of a backend, a device and a precision."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.exported_backends import OnnxBackend, OpenVinoBackend
from wsi_ncmi.encoders.torch_backend import Backend, FromPixels, TorchBackend

__all__ = ["build_backend", "choose_device"]

_LOG = logging.getLogger(__name__)


def choose_device(wanted: str) -> torch.device:
    """The device asked for, or the best one available.

    Raises:
        InputError: CUDA is asked for and not available.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("No CUDA device can be used on this machine; take --device cpu or auto.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def build_backend(
    network: FromPixels,
    *,
    kind: str,
    device: str,
    precision: str,
    batch_size: int,
    edge: int,
    interpolation: str,
) -> Backend:
    """Builds the backend of a network.

    Args:
        network: The network from pixels on.
        kind: ``auto``, ``torch``, ``compile``, ``onnx`` or ``openvino``. ``auto`` is ``torch``: the same
            numbers on every machine that computes exactly, and no waiting for a compiler.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``. ``auto`` is fp32 on the CPU, fp16 on CUDA.
        batch_size: Tiles of a batch.
        edge: Size of the network's input.
        interpolation: Resize of tiles of another size.

    Raises:
        InputError: The combination does not exist, or its packages or device are not available.
    """
    exported = kind in ("onnx", "openvino")
    if exported and device == "cuda":
        raise InputError(f"The backend {kind} runs on the CPU only here; leave --device out or take cpu.")
    chosen = torch.device("cpu") if exported else choose_device(device)
    automatic = "fp16" if chosen.type == "cuda" else "fp32"
    resolved = automatic if precision == "auto" else precision
    if (kind == "onnx" and resolved != "fp32") or (kind == "openvino" and resolved == "fp16"):
        allowed = "fp32" if kind == "onnx" else "fp32 or bf16"
        raise InputError(f"The backend {kind} computes in {allowed}, not {resolved}; change --precision.")
    if chosen.type == "cpu" and resolved != "fp32" and not _has_bf16():
        _warn_slow(resolved)
    shape = (batch_size, 3, edge, edge)
    if kind == "onnx":
        return OnnxBackend(network, shape, torch.get_num_threads())
    if kind == "openvino":
        return OpenVinoBackend(network, shape, torch.get_num_threads(), resolved)
    return TorchBackend(network, chosen, resolved, edge, interpolation, compiled=kind == "compile")


def _has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True if the processor computes in bf16 (avx512_bf16, AMX, or Arm's bf16); elsewhere it is emulated."""
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return True  # not Linux: unknown, so nothing is said
    flags = {
        flag for line in text.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()
    }
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


@cache  # once a process
def _warn_slow(precision: str) -> None:
    _LOG.warning("This processor has no %s arithmetic: it is emulated, and slower than fp32.", precision)
