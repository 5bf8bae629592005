"""The interface of a backend, and PyTorch behind it: at once on the CPU, asynchronously on a CUDA device."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Backend", "FromPixels", "Result", "TorchBackend"]

Result = Callable[[], NDArray[np.float32]]
"""Waits for a batch and gives its vectors, float32 (n, embed_dim)."""


class Backend(ABC):
    """Computes a network.

    Attributes:
        name: Its name in the identity of a feature file, for example ``torch-cpu``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        concurrent: True if several threads may call :meth:`begin` at once, each computing on one core.
        depth: Batches worth having in flight at once; 1 where :meth:`begin` computes before it returns.
        resizes: True if tiles may have any size.
    """

    name: str
    precision: str
    concurrent: bool = True
    depth: int = 1
    resizes: bool = False

    @abstractmethod
    def begin(self, batch: Tensor) -> Result:
        """Starts on a batch.

        Args:
            batch: uint8 (n, 3, h, w) on the CPU, RGB, of the network's input size unless ``resizes``.
        """


_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class FromPixels(nn.Module):
    """A network together with what happens to pixels before it, so that both are compiled or exported.

    Args:
        model: Maps float32 (n, 3, h, w) to (n, embed_dim).
        mean: Per channel, of pixels scaled to 0 … 1.
        std: Same.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        means, deviations = torch.tensor(mean), torch.tensor(std)
        self.register_buffer("scale", (1 / (255 * deviations)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (means / deviations).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Takes uint8 (n, 3, h, w), gives (n, embed_dim)."""
        return cast("Tensor", self.model(pixels.float() * self.scale - self.shift))


class TorchBackend(Backend):
    """A network in inference mode.

    On CUDA, pixels go through pinned memory on a stream of their own, are resized on the device, and results
    come back asynchronously: while one batch computes, the next one is copied.

    Args:
        network: The network from pixels on; it is moved to the device.
        device: CPU or CUDA.
        precision: ``fp32``, or the type of ``autocast``.
        edge: Size of the network's input.
        interpolation: Resize of tiles of another size.
        compiled: Compile with ``torch.compile`` (minutes at the first batch, for one batch shape).
    """

    def __init__(
        self,
        network: FromPixels,
        device: torch.device,
        precision: str,
        edge: int,
        interpolation: str,
        *,
        compiled: bool = False,
    ) -> None:
        self._device, self._edge, self._interpolation = device, edge, interpolation
        self.precision = precision
        self.name = f"torch-{device.type}" + ("-compiled" if compiled else "")
        module: nn.Module = network.eval().requires_grad_(False).to(device)
        module = module.to(memory_format=torch.channels_last)
        self._network: Callable[[Tensor], Any] = torch.compile(module, dynamic=False) if compiled else module
        self.concurrent = not compiled and device.type == "cpu"
        self.resizes = device.type == "cuda"
        if device.type == "cuda":
            self.depth = 2
            self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._computing = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            # The weights came, and were laid out anew, on the stream that is current here.
            self._computing.wait_stream(torch.cuda.current_stream(device))

    def begin(self, batch: Tensor) -> Result:
        """See the base class."""
        with torch.inference_mode():
            if self._device.type == "cuda":
                return self._begin_on_cuda(batch)
            features: NDArray[np.float32] = self._forward(batch).float().numpy()
            return lambda: features

    def _forward(self, batch: Tensor) -> Tensor:
        halved: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self.precision != "fp32":
            halved = torch.autocast(self._device.type, dtype=_DTYPES[self.precision])
        with halved:
            return cast("Tensor", self._network(batch))

    def _begin_on_cuda(self, batch: Tensor) -> Result:
        pinned = batch.pin_memory()
        with torch.cuda.stream(self._copying):
            pixels = pinned.to(self._device, non_blocking=True)
            arrived = self._copying.record_event()
        with torch.cuda.stream(self._computing):
            self._computing.wait_event(arrived)
            pixels.record_stream(self._computing)
            features = self._forward(resized_on_device(pixels, self._edge, self._interpolation)).float()
            host = torch.empty(features.shape, dtype=torch.float32, pin_memory=True)
            host.copy_(features, non_blocking=True)
            done = self._computing.record_event()

        def result() -> NDArray[np.float32]:
            done.synchronize()
            # Held until here: the copies read and write this memory after ``begin`` has returned.
            del self_pinned[:]
            return cast("NDArray[np.float32]", host.numpy())

        self_pinned = [pinned]
        return result


def resized_on_device(pixels: Tensor, edge: int, interpolation: str) -> Tensor:
    """Resizes tiles with antialias in float arithmetic, and rounds to whole levels as PIL does.

    Args:
        pixels: uint8 (n, 3, h, w) on any device.
        edge: The size wanted.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        uint8 (n, 3, edge, edge), channels last; the same tensor where the size is right.
    """
    if pixels.shape[-1] == edge:
        return pixels
    resized = functional.interpolate(
        pixels.float(), size=(edge, edge), mode=interpolation, antialias=True, align_corners=False
    )
    whole = resized.round_().clamp_(0, 255).to(torch.uint8)
    return whole.contiguous(memory_format=torch.channels_last)
