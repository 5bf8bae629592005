"""Networks from a user's own files: TorchScript, and ONNX run on the CPU by ONNX Runtime (extra ``onnx``)."""

import logging
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError, first_line
from wsi_ncmi.core.files import sha256_file
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.encoder_files import needed_file
from wsi_ncmi.encoders.network import Headless, NetworkEncoder, Preprocessing
from wsi_ncmi.encoders.weights_folder import check_listed_file

_LOG = logging.getLogger(__name__)
_INPUT_PX = 224
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _stated_preprocessing(config: EncoderConfig, note: str) -> Preprocessing:
    """Preprocessing as the config say, ImageNet's at 224 px, bilinear, where they are silent."""
    return Preprocessing(
        input_px=config.input_px or _INPUT_PX,
        interpolation=config.interpolation or "bilinear",
        mean=config.mean or _IMAGENET_MEAN,
        std=config.std or _IMAGENET_STD,
        note=note,
    )


def encoder_of_module(
    module: nn.Module, name: str, note: str, source: str, config: EncoderConfig
) -> NetworkEncoder:
    """Makes a user's module an encoder.

    Args:
        module: Maps (n, 3, input_px, input_px), normalised, to (n, embed_dim).
        name: Name to store: no path in it.
        note: Part of the identity beside the preprocessing: hashes of files.
        source: Origin of the weights.
        config: The user's choice.

    Returns:
        The encoder, its embedding dimension found by one forward pass.

    Raises:
        InputError: The module does not give one vector a tile, or can't run.
    """
    headless = Headless(module, (), _stated_preprocessing(config, note))
    try:
        return NetworkEncoder(headless, source, replace(config, name=name))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(
            f"The encoder {name} can't run on a tile of {headless.preprocessing.input_px} px ({reason}); "
            "check the file and encoder.input_px."
        ) from error


def load_torchscript(_: str, config: EncoderConfig) -> Encoder:
    """Builds the encoder ``torchscript:FILE``; such a file is a program, run only when named as one."""
    path = needed_file(config)
    check_listed_file(path)
    name = f"torchscript:{path.name}"
    _LOG.warning("Encoder %s runs the program in its file; take such files only from people you trust.", name)
    digest = sha256_file(path)
    module = read_torchscript(path)
    return encoder_of_module(module, name, f"torchscript sha256 {digest}", path.name, config)


def read_torchscript(path: Path) -> torch.jit.ScriptModule:
    """Reads a TorchScript file, which is a program, onto the CPU.

    Raises:
        InputError: It is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the end of TorchScript at every load
            module: torch.jit.ScriptModule = cast("Any", torch.jit).load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"The file {path} can't be read as TorchScript ({first_line(error)}); save it with "
            "torch.jit.save, or load weights with timm:, torchvision: or a preset."
        ) from error
    return module


class OnnxModule(nn.Module):
    """An ONNX model of one image input and one vector output as a module.

    Args:
        path: The file, whole: tensors in files beside it are not read, since the hash would not cover them.

    Raises:
        InputError: ONNX Runtime is not installed, or the file is no such model.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime

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
            raise InputError(
                f"The file {path} can't be read as ONNX ({first_line(error)}); export the model as one "
                "whole file."
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise InputError(
                f"The model in {path} must take one float image (n, 3, px, px), not {found}; export it so."
            )
        self._input, self._output = inputs[0].name, outputs[0].name

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps float32 (n, 3, px, px) on the CPU to (n, embed_dim)."""
        result = self._session.run([self._output], {self._input: pixels.contiguous().numpy()})
        return torch.from_numpy(result[0])


def load_onnx(_: str, config: EncoderConfig) -> Encoder:
    """Builds the encoder ``onnx:FILE``; see :func:`wsi_ncmi.encoders.load_encoder`."""
    path = needed_file(config)
    check_listed_file(path)
    digest = sha256_file(path)
    encoder = encoder_of_module(
        OnnxModule(path), f"onnx:{path.name}", f"onnx sha256 {digest}", path.name,
        replace(config, device="cpu", precision="fp32", backend="torch"),
    )  # fmt: skip
    # The tensors are in the file, not in the module.
    encoder.info = replace(encoder.info, weights_sha256=digest, backend="onnxruntime-cpu")
    return encoder
