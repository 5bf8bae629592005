"""TorchScript files as encoders. Such a file is a program: it is loaded only when named as one."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, cast

import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import sha256_file
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.foreign import encoder_of_module, find_model_file
from wsi_ncmi.encoders.manifest import check_listed_file
from wsi_ncmi.encoders.registry import EncoderFamily, encoder_family

__all__: list[str] = []

_LOG = logging.getLogger(__name__)


@encoder_family("torchscript")
class _TorchScriptFamily(EncoderFamily):
    by_path = True

    def models(self) -> tuple[str, ...]:
        return ()

    def load(self, model: str, options: EncoderConfig) -> Encoder:
        path = find_model_file(model, options, "TorchScript file")
        check_listed_file(path)
        name = f"torchscript:{path.name}"
        _LOG.warning(
            "Encoder %s runs the program in its file; take such files only from people you trust.", name
        )
        digest = sha256_file(path)
        module = _load(path)
        return encoder_of_module(module, name, f"torchscript sha256 {digest}", path.name, options)


def _load(path: Path) -> torch.jit.ScriptModule:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the end of TorchScript at every load
            module: torch.jit.ScriptModule = cast("Any", torch.jit).load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"The file {path} can't be read as TorchScript ({reason}); save it with torch.jit.save, or load "
            "weights with timm:, torchvision: or a preset."
        ) from error
    return module
