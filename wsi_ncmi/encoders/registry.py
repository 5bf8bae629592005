"""From an encoder's name to the encoder."""

from __future__ import annotations

import difflib
import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import path_safe
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.presets.catalogue import PRESETS, near_presets

__all__ = [
    "WEIGHTS_VARIABLE",
    "EncoderFamily",
    "check_name",
    "encoder_family",
    "encoder_folder_name",
    "list_encoders",
    "load_encoder",
    "resolve_weights",
    "takes_weights",
]

WEIGHTS_VARIABLE = "WSI_NCMI_WEIGHTS"
"""Environment variable that names the folder of encoder weights."""

# Family → the module that registers it, imported only when asked for: torch takes seconds to import.
_MODULES = {
    "descriptor": "wsi_ncmi.encoders.descriptor.encoder",
    "torchvision": "wsi_ncmi.encoders.torchvision_models",
    "timm": "wsi_ncmi.encoders.timm_models",
    "preset": "wsi_ncmi.encoders.preset_models",
    "torchscript": "wsi_ncmi.encoders.torchscript_models",
    "onnx": "wsi_ncmi.encoders.onnx_models",
    "file": "wsi_ncmi.encoders.own_models",
    "plugin": "wsi_ncmi.encoders.own_models",
}
# Families whose preprocessing the user states; the others' comes with the network.
_STATED = ("torchscript", "onnx", "file", "plugin")
_FAMILIES: dict[str, EncoderFamily] = {}
_Family = TypeVar("_Family", bound="type[EncoderFamily]")


class EncoderFamily(ABC):
    """Encoders that are built the same way.

    Their names are ``FAMILY:MODEL``; presets are named by the bare model, the descriptor by its bare family.

    Attributes:
        by_path: Models are files that the user names; there is no list of them.
    """

    by_path: bool = False

    @abstractmethod
    def models(self) -> tuple[str, ...]:
        """Names of the models (after the colon), sorted; empty for a family of one, named by itself."""

    def knows(self, model: str) -> bool:
        """Whether ``model`` can be built."""
        return bool(model) if self.by_path else model in self.models()

    @abstractmethod
    def load(self, model: str, options: EncoderConfig) -> Encoder:
        """Builds the encoder of a model this family knows."""


def encoder_family(name: str) -> Callable[[_Family], _Family]:
    """Registers a family under the name that stands before the colon."""

    def register(cls: _Family) -> _Family:
        if name in _FAMILIES:
            raise ValueError(f"encoder family {name!r} is registered twice")
        _FAMILIES[name] = cls()
        return cls

    return register


def _family(name: str) -> EncoderFamily:
    if name not in _FAMILIES:
        importlib.import_module(_MODULES[name])
    return _FAMILIES[name]


def list_encoders(family: str | None = None) -> tuple[str, ...]:
    """Full names of all encoders that have one; those from a user's file have none until it is named.

    Args:
        family: ``descriptor``, ``preset``, ``torchvision``, ``timm`` or ``plugin``; None for all (imports
            torch and timm).

    Returns:
        Names as ``load_encoder`` takes them.

    Raises:
        InputError: There is no such family.
    """
    if family is not None and family not in _MODULES:
        raise InputError(f"There is no encoder family {family!r}; the families are {', '.join(_MODULES)}.")
    names: list[str] = []
    for each in _MODULES if family is None else (family,):
        models = _family(each).models()
        if each == "descriptor":
            names.append(each)
        else:
            names += models if each == "preset" else [f"{each}:{model}" for model in models]
    return tuple(names)


def load_encoder(options: EncoderConfig) -> Encoder:
    """Builds a frozen encoder, without any network access.

    Args:
        options: Name, weights, device, precision and batch size.

    Returns:
        The encoder, ready to encode.

    Raises:
        InputError: Unknown name (with the nearest valid ones), weights that are missing, ambiguous, unsafe,
            changed or of another model, or a device that is not there.
    """
    family, model = check_name(options.name)
    stated = [field for field in ("mean", "std", "interpolation") if getattr(options, field) is not None]
    if stated and family not in (*_STATED, "preset"):
        raise InputError(
            f"The encoder {options.name} brings its own preprocessing; leave encoder.{stated[0]} out."
        )
    return _family(family).load(model, options)


def check_name(name: str) -> tuple[str, str]:
    """Splits an encoder's name into its family and its model.

    Args:
        name: Full name.

    Returns:
        The family and the model that this family knows.

    Raises:
        InputError: There is no such encoder; the sentence has the nearest names.
    """
    family, colon, model = name.partition(":")
    if not colon:
        if name == "descriptor":
            return name, ""
        if name in PRESETS:
            return "preset", name
    elif family in _MODULES and family not in ("descriptor", "preset") and _family(family).knows(model):
        return family, model
    raise _unknown(name)


def takes_weights(name: str) -> bool:
    """Whether an encoder looks for its weights in the weights folder."""
    return name in PRESETS or name.partition(":")[0] in ("torchvision", "timm", "torchscript", "onnx")


def resolve_weights(encoder: EncoderConfig, weights_dir: Path | None) -> EncoderConfig:
    """Fills in the weights folder for an encoder that takes weights and was given none.

    ``weights_dir`` comes first, then the environment variable ``WSI_NCMI_WEIGHTS``; a folder without weights
    for this encoder is an error when it is loaded.
    """
    folder = weights_dir or (Path(os.environ[WEIGHTS_VARIABLE]) if os.environ.get(WEIGHTS_VARIABLE) else None)
    if encoder.weights is not None or folder is None or not takes_weights(encoder.name):
        return encoder
    if not folder.is_dir():
        raise InputError(f"The weights folder {folder} does not exist; make it or set another.")
    return replace(encoder, weights=folder)


def _unknown(name: str) -> InputError:
    family, colon, model = name.partition(":")
    if colon and family in _MODULES and family not in ("descriptor", "preset"):
        known = _family(family).models()
        near = [f"{family}:{match}" for match in difflib.get_close_matches(model, known, n=3, cutoff=0.5)]
    elif not colon:
        # The commonest slips: another tool's spelling of a preset, and a model without its family.
        near = difflib.get_close_matches(name, ["descriptor"], n=1, cutoff=0.6)
        near = near or [f"{each}:{name}" for each in ("torchvision", "timm") if _family(each).knows(name)]
        near = near or near_presets(name)
    else:
        families = ["torchvision", "timm", "torchscript", "onnx", "file", "plugin"]
        near = [f"{each}:{model}" for each in difflib.get_close_matches(family, families, n=1)]
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "use descriptor, a preset (wsi-ncmi encoders list), torchvision:NAME or timm:NAME."
    )
    return InputError(f"There is no encoder {name!r}; {hint}")


def encoder_folder_name(name: str) -> str:
    """Folder of an encoder's features: every character outside ``[A-Za-z0-9._-]`` becomes ``_``.

    Args:
        name: The encoder's own name (:attr:`Encoder.name`), in which no path stands.

    Returns:
        The folder's name.
    """
    return path_safe(name)
