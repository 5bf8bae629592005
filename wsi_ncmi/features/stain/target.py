"""Stain normalisation target of a job, and its part of the identity of feature files."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import sha256_file
from wsi_ncmi.features.stain.config import StainConfig
from wsi_ncmi.features.stain.density import StainFitError, sample_pixels
from wsi_ncmi.features.stain.methods import MacenkoModel, ReinhardModel, StainModel, StainNormaliser

_VERSION = 1
_MAX_REFERENCE_PIXELS = 100_000_000


@dataclass(frozen=True)
class StainTarget:
    """Target of a job's stain normalisation; made once a job, picklable.

    Attributes:
        model: The target's stain.
        sample_tiles: Tiles that a slide's own stain is measured on.
        identity: Canonical JSON of everything that changes pixels: method and its constants, sampling, and
            the target (``builtin``, or the SHA-256 of the reference file).
    """

    model: StainModel
    sample_tiles: int
    identity: str

    def normaliser(self, sample: NDArray[np.uint8]) -> StainNormaliser:
        """The normaliser of one slide.

        Args:
            sample: uint8 (n, h, w, 3): the slide's tiles at ``sample_positions``.

        Raises:
            StainFitError: The slide's stain can't be measured on them.
        """
        return StainNormaliser(fit_stain(sample, self.model.method), self.model)


def stain_target(config: StainConfig) -> StainTarget | None:
    """The target of a job; None where no normalisation is wanted.

    Raises:
        InputError: The reference is missing, no image, too large, or its stain can't be measured.
    """
    if config.method == "none":
        return None
    kind = model_class(config.method)
    model, origin = kind.builtin(), "builtin"
    if config.reference is not None:
        model, origin = _reference(config.reference, config.method)
    facts = {
        "method": config.method,
        "version": _VERSION,
        # One entry, so that two identities differ first in their method and not in one's constants.
        "parameters": kind.constants(),
        "sample_tiles": config.sample_tiles,
        "target": origin,
    }
    identity = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return StainTarget(model, config.sample_tiles, identity)


def sample_positions(n_tiles: int, sample_tiles: int) -> NDArray[np.int64]:
    """Positions of at most ``sample_tiles`` of a slide's tiles, evenly spread in their order, each once.

    Returns:
        int64 (min(n_tiles, sample_tiles),), ascending; the same for the same numbers.
    """
    count = min(n_tiles, sample_tiles)
    return (2 * np.arange(count, dtype=np.int64) + 1) * n_tiles // (2 * max(count, 1))


def _reference(path: Path, method: str) -> tuple[StainModel, str]:
    try:
        with warnings.catch_warnings():
            # The size is checked against this module's own limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > _MAX_REFERENCE_PIXELS:
                    raise InputError(
                        f"The stain reference {path} has {image.width} × {image.height} pixels; cut a region "
                        "of at most 100 megapixels out of it."
                    )
                pixels = np.asarray(image.convert("RGB"))
            digest = sha256_file(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"The stain reference {path} can't be read as an image ({error}).") from error
    try:
        return fit_stain(pixels, method), f"sha256:{digest}"
    except StainFitError as error:
        reason = str(error).split(": ", 1)[1].split(";", 1)[0]
        raise InputError(
            f"The stain reference {path} can't be used: {reason}; give an image of tissue with both stains."
        ) from error


_METHODS: dict[str, type[StainModel]] = {model.method: model for model in (MacenkoModel, ReinhardModel)}


def model_class(method: str) -> type[StainModel]:
    """The class of models of a method.

    Raises:
        ValueError: There is no such method.
    """
    if method not in _METHODS:
        raise ValueError(f"there is no stain normalisation {method!r}; choose from {', '.join(_METHODS)}")
    return _METHODS[method]


def fit_stain(pixels: NDArray[np.uint8], method: str) -> StainModel:
    """Measures the stain of an image, or of tiles of one slide together.

    The same pixels always give the same model.

    Args:
        pixels: uint8 (h, w, 3) or (n, h, w, 3); glass may be among them and doesn't count.
        method: ``macenko`` or ``reinhard``.

    Returns:
        The model.

    Raises:
        StainFitError: Too little tissue, a single stain (Macenko), or no contrast (Reinhard).
        ValueError: Not such pixels, or no such method.
    """
    return model_class(method).fit(sample_pixels(pixels))
