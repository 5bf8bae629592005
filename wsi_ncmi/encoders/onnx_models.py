"""ONNX files as encoders, run on the CPU by ONNX Runtime (extra ``onnx``)."""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import sha256_file
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.foreign import encoder_of_module, find_model_file
from wsi_ncmi.encoders.manifest import check_listed_file
from wsi_ncmi.encoders.registry import EncoderFamily, encoder_family

__all__ = ["OnnxModule"]


class OnnxModule(nn.Module):
    """An ONNX model of one image input and one vector output as a module.

    Args:
        path: The file, whole: tensors in files beside it are not read, since the hash would not cover them.

    Raises:
        InputError: ONNX Runtime is not installed, or the file is no such model.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            onnxruntime: Any = importlib.import_module("onnxruntime")
        except ModuleNotFoundError as error:
            raise InputError(
                f"The encoder onnx:{path.name} needs ONNX Runtime; get it by pip install 'wsi-ncmi[onnx]'."
            ) from error
        settings = onnxruntime.SessionOptions()
        # The worker's share of the cores, as torch was told it.
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 4  # one sentence below says it
        try:
            with tempfile.TemporaryDirectory() as empty:
                settings.add_session_config_entry(
                    "session.model_external_initializers_file_folder_path", empty
                )
                self._session: Any = onnxruntime.InferenceSession(
                    path.read_bytes(), settings, providers=["CPUExecutionProvider"]
                )
        except Exception as error:  # ONNX Runtime's errors have no base class of their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"The file {path} can't be read as ONNX ({reason}); export the model as one whole file."
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise InputError(
                f"The model in {path} must take one float image (n, 3, px, px), not {found}; export it so."
            )
        self._input, self._output = inputs[0].name, outputs[0].name

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps float32 (n, 3, px, px) on the CPU to (n, width)."""
        result = self._session.run([self._output], {self._input: pixels.contiguous().numpy()})
        return torch.from_numpy(result[0])


@encoder_family("onnx")
class _OnnxFamily(EncoderFamily):
    by_path = True

    def models(self) -> tuple[str, ...]:
        return ()

    def load(self, model: str, options: EncoderConfig) -> Encoder:
        if options.device == "cuda" or options.precision not in ("auto", "fp32"):
            raise InputError(
                "ONNX files run on the CPU in fp32 here; take --device cpu and --precision fp32, or the "
                "network itself by timm: or torchscript:."
            )
        path = find_model_file(model, options, "ONNX file")
        check_listed_file(path)
        digest = sha256_file(path)
        encoder = encoder_of_module(
            OnnxModule(path), f"onnx:{path.name}", f"onnx sha256 {digest}", path.name,
            replace(options, device="cpu", precision="fp32", backend="torch"),
        )  # fmt: skip
        # The tensors are in the file, not in the module.
        encoder.info = replace(encoder.info, weights_sha256=digest, backend="onnxruntime-cpu")
        return encoder
