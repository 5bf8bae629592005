"""The choice of a backend, and networks exported to ONNX Runtime or OpenVINO (both optional)."""

import importlib
import io
import logging
import sys
import threading
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_ncmi.core.errors import InputError, first_line
from wsi_ncmi.core.extras import require
from wsi_ncmi.encoders.torch_backend import Backend, FromPixels, Result, TorchBackend

_LOG = logging.getLogger(__name__)


class OnnxBackend(Backend):
    """ONNX Runtime on the CPU, in fp32. The exported model lives in memory only.

    Args:
        network: The network from pixels on.
        shape: The one shape of all batches, (n, 3, h, w).
        threads: Compute threads of one call.

    Raises:
        InputError: The extra is not installed, or the network can't be exported.
    """

    name = "onnxruntime-cpu"
    precision = "fp32"

    def __init__(self, network: FromPixels, shape: tuple[int, ...], threads: int) -> None:
        runtime = _extra("onnxruntime", "onnx")
        _extra("onnx", "onnx")
        buffer = io.BytesIO()
        example = torch.zeros(shape, dtype=torch.uint8)
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter's advice to its own developers
                # The older exporter alone writes into memory and needs no further package.
                export: Any = torch.onnx.export
                export(network.eval().cpu(), (example,), buffer, dynamo=False, opset_version=17)
        except Exception as error:
            raise InputError(
                f"This network can't be exported to ONNX ({first_line(error)[:200]}); use --backend torch."
            ) from error
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        # A thread that spins for work takes it from the reader and from the other encoding threads.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        self._session = runtime.InferenceSession(
            buffer.getvalue(), settings, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def begin(self, batch: Tensor) -> Result:
        """See the base class."""
        given = np.ascontiguousarray(batch.numpy())
        features: NDArray[np.float32] = np.asarray(self._session.run(None, {self._input: given})[0])
        return lambda: features


class OpenVinoBackend(Backend):
    """OpenVINO on the CPU.

    Args:
        network: The network from pixels on.
        shape: The one shape of all batches, (n, 3, h, w).
        threads: Compute threads of one call.
        precision: ``fp32`` or ``bf16``.

    Raises:
        InputError: The extra is not installed, or the network can't be converted.
    """

    name = "openvino-cpu"
    concurrent = False  # it has a thread pool of its own

    def __init__(self, network: FromPixels, shape: tuple[int, ...], threads: int, precision: str) -> None:
        # Its converter reports to its makers where this package can be imported; nothing may leave here.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        openvino = _extra("openvino", "openvino")
        self.precision = precision
        example = torch.zeros(shape, dtype=torch.uint8)
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its tracer is torch's older one, and torch says so
                model = openvino.convert_model(network.eval().cpu(), example_input=example, input=[shape])
        except Exception as error:
            raise InputError(
                f"This network can't be converted to OpenVINO ({first_line(error)[:200]}); use --backend "
                "torch."
            ) from error
        # Without the hint OpenVINO takes bf16 wherever the processor has it, whatever was asked for.
        hint = {"fp32": "f32", "bf16": "bf16"}[precision]
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self._model: Any = openvino.Core().compile_model(model, "CPU", settings)
        self._lock = threading.Lock()

    def begin(self, batch: Tensor) -> Result:
        """See the base class."""
        given = np.ascontiguousarray(batch.numpy())
        with self._lock:  # one request at a time
            features: NDArray[np.float32] = np.array(self._model([given])[0], np.float32)
        return lambda: features


def _extra(module: str, extra: str) -> ModuleType:
    require((extra,), f"--backend {extra}")
    logging.getLogger(module).setLevel(logging.ERROR)
    return importlib.import_module(module)


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
        InputError: Its packages or device are not available.
    """
    exported = kind in ("onnx", "openvino")
    chosen = torch.device("cpu") if exported else choose_device(device)
    automatic = "fp16" if chosen.type == "cuda" else "fp32"
    resolved = automatic if precision == "auto" else precision
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
