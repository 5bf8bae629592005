"""A frozen network as an encoder: preprocessing, precision, and one fixed batch shape."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.options import EncoderOptions
from wsi_ncmi.encoders.weights import find_weights, load_state, load_strictly, state_sha256
from wsi_ncmi.errors import InputError

__all__ = ["Headless", "NetworkEncoder", "Preprocessing", "build_network_encoder", "build_seeded"]

_LOG = logging.getLogger(__name__)
_RANDOM_SEED = 0
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a tile before the network.

    Attributes:
        input_px: Edge of the network's input; the whole tile is resized to it, nothing is cropped away.
        interpolation: ``bilinear`` or ``bicubic``, with antialias; a tile of this size is left as it is.
        mean: Per channel, of pixels scaled to 0 … 1.
        std: Same.
        note: Anything else that belongs to the identity.
    """

    input_px: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    note: str = ""

    def __str__(self) -> str:
        mean, std = (",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        text = f"resize {self.input_px} {self.interpolation} antialias; mean {mean}; std {std}"
        return f"{text}; {self.note}" if self.note else text


@dataclass(frozen=True)
class Headless:
    """A network without its classifier.

    Attributes:
        model: Maps (n, 3, input_px, input_px) to (n, width).
        head: Name prefixes of the removed tensors; only these may be left over in a weights file.
        preprocessing: What the model expects.
    """

    model: nn.Module
    head: tuple[str, ...]
    preprocessing: Preprocessing


def build_seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Builds a network with the same random weights at every call; the caller's random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        return build()


def build_network_encoder(headless: Headless, model_name: str, options: EncoderOptions) -> NetworkEncoder:
    """Loads the weights into a headless network and makes it an encoder.

    Args:
        headless: The network with random weights from :func:`build_seeded`.
        model_name: Name without the family, by which a weights folder is searched.
        options: The user's choice.

    Returns:
        The encoder.

    Raises:
        InputError: Weights or device are not there or do not fit.
    """
    if options.weights is None:
        _warn_random(options.name)
        source = f"random (seed {_RANDOM_SEED})"
    else:
        path = find_weights(Path(options.weights), model_name)
        load_strictly(headless.model, load_state(path), head=headless.head, path=path, name=options.name)
        source = path.name
    return NetworkEncoder(headless, source, options)


@cache  # once for each name and process
def _warn_random(name: str) -> None:
    _LOG.warning(
        "Encoder %s has RANDOM weights (seed %d): its features say little about tissue. "
        "Give a file or folder of weights with --weights.",
        name, _RANDOM_SEED,
    )  # fmt: skip


def _choose_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("No CUDA device can be used on this machine; take --device cpu or auto.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


class NetworkEncoder(Encoder):
    """Runs a frozen network in inference mode.

    Every forward pass has ``batch_size`` rows (the last batch is padded): kernels are chosen by shape, so
    only then a tile's numbers do not depend on how many other tiles came with it.
    """

    def __init__(self, headless: Headless, weights_source: str, options: EncoderOptions) -> None:
        self._device = _choose_device(options.device)
        self._batch_size = options.batch_size
        self._preprocessing = headless.preprocessing
        self.name = options.name
        self.transform = str(headless.preprocessing)
        self.weights_sha256 = state_sha256(headless.model)
        self.weights_source = weights_source
        self.backend = f"torch-{self._device.type}"
        automatic = "fp16" if self._device.type == "cuda" else "fp32"
        self.precision = automatic if options.precision == "auto" else options.precision
        self._model = headless.model.eval().requires_grad_(False).to(self._device)
        self._model = self._model.to(memory_format=torch.channels_last)
        mean, std = torch.tensor(headless.preprocessing.mean), torch.tensor(headless.preprocessing.std)
        self._scale = (1 / (255 * std)).view(1, 3, 1, 1).to(self._device)
        self._shift = (mean / std).view(1, 3, 1, 1).to(self._device)
        self.width = self._probe_width()

    def _probe_width(self) -> int:
        edge = self._preprocessing.input_px
        with torch.inference_mode():
            output = self._forward(torch.zeros(1, 3, edge, edge, dtype=torch.uint8))
        if output.ndim != 2:
            raise InputError(
                f"Encoder {self.name} gives an output of shape {tuple(output.shape[1:])} for a tile, not "
                f"one vector; "
                "choose a model that pools."
            )
        return int(output.shape[1])

    def _encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        features = np.empty((len(pixels), self.width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(pixels), self._batch_size):
                batch = self._resize(np.ascontiguousarray(pixels[start : start + self._batch_size]))
                count = batch.shape[0]
                if count < self._batch_size:
                    padding = batch.new_zeros(self._batch_size - count, *batch.shape[1:])
                    batch = torch.cat([batch, padding]).contiguous(memory_format=torch.channels_last)
                features[start : start + count] = self._forward(batch)[:count].float().cpu().numpy()
        return features

    def _resize(self, pixels: NDArray[np.uint8]) -> Tensor:
        """uint8 (n, 3, input_px, input_px), channels last; rounded to whole levels as PIL does."""
        # NHWC memory seen as NCHW is channels_last already: nothing is copied.
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        edge = self._preprocessing.input_px
        if batch.shape[-1] == edge:
            return batch
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize_image

        mode = InterpolationMode(self._preprocessing.interpolation)
        resized: Tensor = resize_image(batch, [edge, edge], interpolation=mode, antialias=True)
        return resized.contiguous(memory_format=torch.channels_last)

    def _forward(self, batch: Tensor) -> Tensor:
        inputs = batch.to(self._device, non_blocking=True).float().mul_(self._scale).sub_(self._shift)
        if self.precision == "fp32":
            return cast("Tensor", self._model(inputs))
        with torch.autocast(self._device.type, dtype=_DTYPES[self.precision]):
            return cast("Tensor", self._model(inputs))
