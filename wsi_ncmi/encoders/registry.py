"""Lists encoders and loads them by name."""

import difflib
import pkgutil
from pathlib import Path
from typing import Any, cast

from wsi_ncmi.core.config import config_from
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import path_safe
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.config import FAMILIES, EncoderConfig, split_name
from wsi_ncmi.encoders.weights_folder import resolve_weights


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
    if family is not None and family not in FAMILIES:
        raise InputError(f"There is no encoder family {family!r}; the families are {', '.join(FAMILIES)}.")
    names: list[str] = []
    for each in FAMILIES if family is None else (family,):
        if each in ("descriptor", "preset"):
            names += [each] if each == "descriptor" else sorted(_models(each))
        else:
            names += [f"{each}:{model}" for model in _models(each)]
    return tuple(names)


def load_encoder(config: EncoderConfig | str, **settings: Any) -> Encoder:
    """Builds a frozen encoder, without any network access.

    Args:
        config: Its name (``wsi-ncmi encoders``), or its config.
        **settings: Fields of :class:`EncoderConfig` for a name: ``weights``, ``device``, ``precision``,
            ``batch_size``…, and ``weights_dir``, a folder of weights (else ``WSI_NCMI_WEIGHTS`` names it).

    Returns:
        The encoder: ``encoder(tiles)`` gives float32 (n, D).

    Raises:
        InputError: Unknown name (with the nearest valid ones), weights that are missing, ambiguous, unsafe,
            changed or of another model, or a device that is not there.

    Example:
        >>> import numpy as np
        >>> encoder = load_encoder("descriptor")
        >>> encoder(np.zeros((2, 224, 224, 3), np.uint8)).shape
        (2, 229)
    """
    if isinstance(config, str):
        folder = settings.pop("weights_dir", None)
        named = config_from(EncoderConfig, {"name": config, **settings}, "the encoder")
        config = resolve_weights(named, None if folder is None else Path(folder))
    elif not isinstance(config, EncoderConfig) or settings:
        raise InputError(
            f"An encoder is given by its name and settings, or its config alone; got {config!r}."
        )
    check_known(config.name)
    family, model = split_name(config.name)
    return cast("Encoder", _function(FAMILIES[family].load)(model, config))


def check_known(name: str) -> None:
    """Checks that a model's own package knows it; may import torch.

    Args:
        name: Full name, of a form that :class:`EncoderConfig` takes.

    Raises:
        InputError: It does not; the sentence has the nearest names.
    """
    family, model = split_name(name)
    knows = FAMILIES[family].knows
    if not FAMILIES[family].models:
        return
    if _function(knows)(model) if knows else model in _models(family):
        return
    near = [f"{family}:{each}" for each in difflib.get_close_matches(model, _models(family), n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else "use a name that its package lists."
    raise InputError(f"There is no encoder {name!r}; {hint}")


def encoder_folder_name(name: str) -> str:
    """Folder of an encoder's features: every character outside ``[A-Za-z0-9._-]`` becomes ``_``.

    Args:
        name: The encoder's own name (``EncoderInfo.name``), which holds no path.

    Returns:
        The folder's name.
    """
    return path_safe(name)


def _models(family: str) -> tuple[str, ...]:
    models = FAMILIES[family].models
    return tuple(_function(models)()) if models else ()


def _function(path: str) -> Any:
    return pkgutil.resolve_name(f"wsi_ncmi.encoders.{path}")
