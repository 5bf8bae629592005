"""The interface of every encoder: a frozen map from tiles to vectors, and what decides its numbers."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.arguments import described
from wsi_ncmi.core.errors import InputError, WsiNcmiError


@dataclasses.dataclass(frozen=True)
class EncoderInfo:
    """The fields that name an encoder and decide its numbers; picklable.

    Attributes:
        name: Full name as given by the user, for example ``torchvision:squeezenet1_1``.
        embed_dim: Length of a feature vector.
        transform: Canonical text of everything done to the pixels before the network.
        weights_sha256: SHA-256 of the tensors in use (``weights.state_sha256``); ``"none"`` without weights.
        weights_source: Origin of the weights, for the record only: a file name, ``"random (seed 0)"`` or
            ``"none"``.
        precision: ``fp32``, ``bf16`` or ``fp16``: the arithmetic of the forward pass; the result is float32.
        backend: ``numpy``, ``torch-cpu``, ``torch-cuda``, ``onnxruntime-cpu``…
        batch_size: The one number of tiles that it computes at a time; None where that makes no difference.
        licence: Of the weights, for the record only; empty where it isn't known.
    """

    name: str
    embed_dim: int
    transform: str
    weights_sha256: str
    weights_source: str
    precision: str
    backend: str
    batch_size: int | None = None
    licence: str = ""

    def difference(self, other: EncoderInfo) -> str:
        """The first field in which another encoder gives other numbers, in words; empty where none does."""
        its = other.to_json()
        for name, mine in self.to_json().items():
            if name not in ("weights_source", "licence") and mine != its[name]:
                return f"{name} {its[name]} instead of {mine}"
        return ""

    def to_json(self) -> dict[str, Any]:
        """The fields as ``run.json`` holds them: ``width`` for ``embed_dim``, a licence where known."""
        return {
            "width" if key == "embed_dim" else key: value
            for key, value in dataclasses.asdict(self).items()
            if value or key != "licence"
        }


class Encoder(ABC):
    """Maps RGB tiles to feature vectors. The public method validates, the private one computes.

    A tile's vector depends on the tile alone, never on the tiles that share its batch.

    Attributes:
        info: The fields that name it and decide its numbers.
        concurrent: True if several threads may encode at once, each on one core.
        depth: Batches worth having in flight at once through :meth:`begin`.
        remark: An event that belongs in the ledger; empty where there was none.
    """

    info: EncoderInfo
    concurrent: bool = False
    depth: int = 1
    remark: str = ""

    def __call__(self, tiles: Any) -> NDArray[np.float32]:
        """Encodes tiles as people hold them.

        Args:
            tiles: uint8 RGB (n, h, h, 3), one tile (h, h, 3), a PIL image, or a list of tiles of one size.

        Returns:
            float32 (n, embed_dim); n is 1 for a single tile.

        Raises:
            InputError: They are no such tiles.
        """
        try:
            if hasattr(tiles, "convert"):  # an image of PIL's
                tiles = [tiles]
            if isinstance(tiles, list | tuple):
                tiles = np.stack(
                    [np.asarray(t.convert("RGB") if hasattr(t, "convert") else t) for t in tiles]
                )
            pixels = np.asarray(tiles)
            pixels = pixels[None] if pixels.ndim == 3 else pixels
            self.check(pixels)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The encoder {self.info.name} takes RGB tiles, uint8 (n, h, h, 3) or a list of images of "
                f"one size, got {described(tiles)} ({error})."
            ) from error
        return self.encode(pixels)

    def __repr__(self) -> str:
        info = self.info
        return f"<Encoder {info.name}: {info.embed_dim} features, {info.backend}, {info.precision}>"

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encodes tiles.

        Args:
            pixels: uint8 (n, h, w, 3), RGB, square; n may be 0.

        Returns:
            float32 (n, embed_dim), finite.

        Raises:
            ValueError: ``pixels`` has another type or shape.
            WsiNcmiError: The encoder gave a value that is not finite.
        """
        self.check(pixels)
        if pixels.shape[0] == 0:
            return np.empty((0, self.info.embed_dim), np.float32)
        return self.checked(self._encode(pixels))

    def begin(self, pixels: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        """Starts to encode tiles, asynchronously where the device can.

        Args:
            pixels: As for :meth:`encode`; they must not change until the result is taken.

        Returns:
            A function that waits for the result of :meth:`encode`, or raises what it would.
        """
        features = self.encode(pixels)
        return lambda: features

    @staticmethod
    def check(pixels: NDArray[np.uint8]) -> None:
        """Refuses arrays that hold no tiles.

        Raises:
            ValueError: Another type or shape than uint8 (n, h, h, 3).
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ValueError(f"tiles must be uint8 (n, h, w, 3), not {pixels.dtype} {pixels.shape}")
        if pixels.shape[1] != pixels.shape[2]:
            # A network's input is square; stretching a tile would change the shape of its nuclei.
            raise ValueError(f"tiles must be square, not {pixels.shape[1]} × {pixels.shape[2]} px")

    def checked(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same vectors, if all of their values are finite.

        Raises:
            WsiNcmiError: Some are not.
        """
        if not np.isfinite(features).all():
            bad = int((~np.isfinite(features).all(axis=1)).sum())
            raise WsiNcmiError(
                f"Encoder {self.info.name} gave values that are not finite for {bad} of {len(features)} "
                f"tiles at precision {self.info.precision}; use --precision fp32 and check its weights."
            )
        return features

    @abstractmethod
    def _encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encodes at least one square tile: float32 (n, embed_dim)."""


# The last three are how cuDNN and cuBLAS say that no memory is left for what they work in.
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory",
          "failed to allocate", "unable to find an engine", "cudnn_status_not_supported",
          "_status_alloc_failed")  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error says that memory ran out, on the CPU (any allocator's words) or on a CUDA device."""
    # torch.cuda.OutOfMemoryError is a RuntimeError that says "out of memory"; so no import is needed.
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)
