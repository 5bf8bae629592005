"""A frozen network as an encoder: preprocessing, and one fixed batch shape, halved when memory runs out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.backends import build_backend
from wsi_ncmi.encoders.base import Encoder, EncoderInfo, is_out_of_memory
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.encoder_files import find_weights
from wsi_ncmi.encoders.torch_backend import Backend, FromPixels, Result
from wsi_ncmi.encoders.weights import load_strictly, state_sha256
from wsi_ncmi.encoders.weights_choice import choose_weights

__all__ = [
    "Headless", "NetworkEncoder", "Preprocessing", "build_network_encoder", "build_seeded",
    "find_batch_size",
]  # fmt: skip

_LOG = logging.getLogger(__name__)
_RANDOM_SEED = 0
AUTOMATIC_ON_CPU = 16
"""Batch of ``auto`` on the CPU: larger ones gain nothing there and outgrow the caches."""

_SMALLEST_AUTOMATIC, _LARGEST_AUTOMATIC = 8, 256
_HALVING = threading.Lock()


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of a tile.

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
        model: Maps (n, 3, input_px, input_px) to (n, embed_dim).
        head: Name prefixes of the removed tensors; only these may be left over in a weights file.
        preprocessing: The preprocessing that the model expects.
    """

    model: nn.Module
    head: tuple[str, ...]
    preprocessing: Preprocessing


def build_seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Builds a network with the same random weights at every call; the caller's random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        return build()


def build_network_encoder(headless: Headless, model_name: str, config: EncoderConfig) -> NetworkEncoder:
    """Loads the weights into a headless network and makes it an encoder.

    Args:
        headless: The network with random weights from :func:`build_seeded`.
        model_name: Name without the family, by which a weights folder is searched.
        config: The user's choice.

    Returns:
        The encoder.

    Raises:
        InputError: Weights or device are not there or do not fit.
    """
    if config.weights is None:
        _warn_random(config.name)
        source = f"random (seed {_RANDOM_SEED})"
    else:
        path = find_weights(Path(config.weights), model_name)
        state, _ = choose_weights(path, headless.model, head=headless.head, name=config.name)
        load_strictly(headless.model, state, head=(), path=path, name=config.name)
        source = path.name
    return NetworkEncoder(headless, source, config)


@cache  # once for each name and process
def _warn_random(name: str) -> None:
    _LOG.warning(
        "Encoder %s has RANDOM weights (seed %d): its features say little about tissue. "
        "Give a file or folder of weights with --weights.",
        name, _RANDOM_SEED,
    )  # fmt: skip


def find_batch_size(run: Callable[[int], object], *, largest: int, smallest: int = 1) -> int:
    """Doubles the batch until memory runs out.

    Memory decides, never the clock: the same device gives the same answer every time.

    Args:
        run: Computes a batch of that many tiles and lets its memory go.
        largest: No batch is larger.
        smallest: The first one tried.

    Returns:
        The largest size that ran, halved once where a larger one did not: what just fits fails later, when
        memory is fragmented.

    Raises:
        MemoryError: Not even ``smallest`` runs.
    """
    size = smallest
    found = 0
    while size <= largest:
        try:
            run(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if not found:
                raise MemoryError(f"not enough memory for a batch of {size} tiles") from error
            return max(smallest, found // 2)
        found, size = size, size * 2
    return found


class NetworkEncoder(Encoder):
    """Runs a frozen network in inference mode.

    Every forward pass has ``batch_size`` rows (the last batch is padded): kernels are chosen by shape, so
    only then a tile's numbers do not depend on how many other tiles came with it. Where memory runs out the
    batch is halved for good, and the encoder says so in ``remark``.
    """

    def __init__(self, headless: Headless, weights_source: str, config: EncoderConfig) -> None:
        self._preprocessing = headless.preprocessing
        digest = state_sha256(headless.model)
        automatic = config.batch_size == "auto"
        self._batch_size = AUTOMATIC_ON_CPU if config.batch_size == "auto" else config.batch_size
        self._network = FromPixels(headless.model, headless.preprocessing.mean, headless.preprocessing.std)
        self._options = config
        self._computes: Backend = self._build()
        self.concurrent, self.depth = self._computes.concurrent, self._computes.depth
        embed_dim = self._probe_embed_dim()
        if automatic and self._computes.name.startswith("torch-cuda"):
            self._batch_size = find_batch_size(
                self._probe, largest=_LARGEST_AUTOMATIC, smallest=_SMALLEST_AUTOMATIC
            )
        self.info = EncoderInfo(
            name=config.name,
            embed_dim=embed_dim,
            transform=str(headless.preprocessing),
            weights_sha256=digest,
            weights_source=weights_source,
            precision=self._computes.precision,
            backend=self._computes.name,
            batch_size=self._batch_size,
        )

    def _build(self) -> Backend:
        return build_backend(
            self._network,
            kind=self._options.backend,
            device=self._options.device,
            precision=self._options.precision,
            batch_size=self._batch_size,
            edge=self._preprocessing.input_px,
            interpolation=self._preprocessing.interpolation,
        )

    def _probe(self, count: int) -> NDArray[np.float32]:
        edge = self._preprocessing.input_px
        return self._computes.begin(torch.zeros(count, 3, edge, edge, dtype=torch.uint8))()

    def _probe_embed_dim(self) -> int:
        # Exported models take the one shape only; everywhere else one tile tells the length.
        fixed = not self._computes.name.startswith("torch-") or self._computes.name.endswith("-compiled")
        shape = self._probe(self._batch_size if fixed else 1).shape
        if len(shape) != 2:
            raise InputError(
                f"Encoder {self._options.name} gives an output of shape {tuple(shape[1:])} for a tile, not "
                f"one vector; "
                "choose a model that pools."
            )
        return int(shape[1])

    def begin(self, pixels: NDArray[np.uint8]) -> Result:
        """Starts on tiles without waiting for their vectors; see the base class."""
        self.check(pixels)
        if not 0 < len(pixels) <= self._batch_size:
            return super().begin(pixels)
        try:
            result = self._computes.begin(self._padded(pixels, self._batch_size))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return super().begin(pixels)  # which halves the batch where it is still too large

        def finish() -> NDArray[np.float32]:
            try:
                features = result()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                return self.encode(pixels)
            return self.checked(features[: len(pixels)])

        return finish

    def _encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        features = np.empty((len(pixels), self.info.embed_dim), np.float32)
        start = 0
        while start < len(pixels):
            size = self._batch_size
            part = pixels[start : start + size]
            try:
                features[start : start + len(part)] = self._computes.begin(self._padded(part, size))()[
                    : len(part)
                ]
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                self._halve(size)
                continue
            start += size
        return features

    def _halve(self, failed: int) -> None:
        """Lets go of what the failed batch holds, and halves the batch."""
        with _HALVING:
            if self._batch_size < failed:
                return  # another thread has
            self._batch_size = failed // 2
            self.info = replace(self.info, batch_size=self._batch_size)
            self.remark = f"memory ran out, so batches were halved to {self._batch_size} tiles"
            _LOG.warning("Encoder %s: %s.", self._options.name, self.remark)
            if self._computes.name.startswith("torch-cuda"):
                torch.cuda.empty_cache()
            elif not self._computes.name.startswith("torch-"):
                self._computes = self._build()  # exported models are made for one shape

    def _padded(self, pixels: NDArray[np.uint8], size: int) -> Tensor:
        batch = self._resize(np.ascontiguousarray(pixels))
        if len(pixels) == size:
            return batch
        padding = batch.new_zeros(size - len(pixels), *batch.shape[1:])
        return torch.cat([batch, padding]).contiguous(memory_format=torch.channels_last)

    def _resize(self, pixels: NDArray[np.uint8]) -> Tensor:
        """uint8 (n, 3, input_px, input_px), channels last; rounded to whole levels as PIL does."""
        # NHWC memory seen as NCHW is channels_last already: nothing is copied.
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        edge = self._preprocessing.input_px
        if batch.shape[-1] == edge or self._computes.resizes:
            return batch
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize_image

        mode = InterpolationMode(self._preprocessing.interpolation)
        resized: Tensor = resize_image(batch, [edge, edge], interpolation=mode, antialias=True)
        return resized.contiguous(memory_format=torch.channels_last)
