"""What networks from a user's own files share: a name without a path, and stated preprocessing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.network import Headless, NetworkEncoder, Preprocessing
from wsi_ncmi.encoders.presets.preset import IMAGENET

__all__ = ["encoder_of_module", "find_model_file", "stated_preprocessing"]

_INPUT_PX = 224


def find_model_file(model: str, options: EncoderConfig, what: str) -> Path:
    """The file that a name after the colon means.

    Args:
        model: A path, or a file's name where ``options.weights`` gives its folder or the file itself.
        options: The user's choice.
        what: Kind of the file, for the error.

    Returns:
        The file.

    Raises:
        InputError: There is none.
    """
    candidates = [Path(model)]
    if options.weights is not None:
        given = Path(options.weights)
        candidates = [given / Path(model).name if given.is_dir() else given, *candidates]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"There is no {what} {candidates[-1]}; give its path after the colon, or its folder with --weights."
    )


def stated_preprocessing(options: EncoderConfig, note: str) -> Preprocessing:
    """Preprocessing as the options say, ImageNet's at 224 px, bilinear, where they are silent."""
    mean, std = IMAGENET
    return Preprocessing(
        input_px=options.input_px or _INPUT_PX,
        interpolation=options.interpolation or "bilinear",
        mean=options.mean or mean,
        std=options.std or std,
        note=note,
    )


def encoder_of_module(
    module: nn.Module, name: str, note: str, source: str, options: EncoderConfig
) -> NetworkEncoder:
    """Makes a user's module an encoder.

    Args:
        module: Maps (n, 3, input_px, input_px), normalised, to (n, width).
        name: Name to store: no path in it.
        note: What belongs to the identity beside the preprocessing: hashes of files.
        source: Where the weights come from.
        options: The user's choice.

    Returns:
        The encoder, its width found by one forward pass.

    Raises:
        InputError: The module does not give one vector a tile, or can't run.
    """
    headless = Headless(module, (), stated_preprocessing(options, note))
    try:
        return NetworkEncoder(headless, source, replace(options, name=name))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(
            f"The encoder {name} can't run on a tile of {headless.preprocessing.input_px} px ({reason}); "
            "check the file and encoder.input_px."
        ) from error
