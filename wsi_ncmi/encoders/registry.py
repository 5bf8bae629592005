"""From an encoder's name to the encoder."""

from __future__ import annotations

import difflib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.options import EncoderOptions
from wsi_ncmi.errors import InputError
from wsi_ncmi.files import path_safe

__all__ = ["EncoderFamily", "encoder_family", "encoder_folder_name", "list_encoders", "load_encoder"]

# Family → the module that registers it, imported only when asked for: torch takes seconds to import.
_MODULES = {
    "descriptor": "wsi_ncmi.encoders.descriptor.encoder",
    "torchvision": "wsi_ncmi.encoders.torchvision_models",
    "timm": "wsi_ncmi.encoders.timm_models",
}
_FAMILIES: dict[str, EncoderFamily] = {}
_Family = TypeVar("_Family", bound="type[EncoderFamily]")


class EncoderFamily(ABC):
    """Encoders that are built the same way; their names are ``FAMILY:MODEL`` or the bare ``FAMILY``."""

    @abstractmethod
    def models(self) -> tuple[str, ...]:
        """Names of the models (after the colon), sorted; empty for a family of one, named by itself."""

    def knows(self, model: str) -> bool:
        """Whether ``model`` can be built."""
        return model in self.models()

    @abstractmethod
    def load(self, model: str, options: EncoderOptions) -> Encoder:
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
    """Full names of all encoders.

    Args:
        family: ``descriptor``, ``torchvision`` or ``timm``; None for all (imports torch and timm).

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
        names += [f"{each}:{model}" for model in models] if models else [each]
    return tuple(names)


def load_encoder(options: EncoderOptions) -> Encoder:
    """Builds a frozen encoder, without any network access.

    Args:
        options: Name, weights, device, precision and batch size.

    Returns:
        The encoder, ready to encode.

    Raises:
        InputError: Unknown name (with the nearest valid ones), weights that are missing, ambiguous, unsafe or
            of another model, or a device that is not there.
    """
    family, _, model = options.name.partition(":")
    if family not in _MODULES or (family == "descriptor") != (":" not in options.name):
        raise _unknown(options.name)
    builder = _family(family)
    if family != "descriptor" and not builder.knows(model):
        raise _unknown(options.name)
    return builder.load(model, options)


def _unknown(name: str) -> InputError:
    family, colon, model = name.partition(":")
    if colon and family in _MODULES and family != "descriptor":
        known = _family(family).models()
        near = [f"{family}:{match}" for match in difflib.get_close_matches(model, known, n=3, cutoff=0.5)]
    elif not colon:
        # The commonest slip is the model without its family.
        near = difflib.get_close_matches(name, ["descriptor"], n=1, cutoff=0.6)
        near += [
            f"{each}:{name}" for each in ("torchvision", "timm") if not near and _family(each).knows(name)
        ]
    else:
        near = [f"{each}:{model}" for each in difflib.get_close_matches(family, ["torchvision", "timm"], n=1)]
    hint = f"did you mean {' or '.join(near)}?" if near else "use descriptor, torchvision:NAME or timm:NAME."
    return InputError(f"There is no encoder {name!r}; {hint}")


def encoder_folder_name(name: str) -> str:
    """Folder of an encoder's features: every character outside ``[A-Za-z0-9._-]`` becomes ``_``."""
    return path_safe(name)
