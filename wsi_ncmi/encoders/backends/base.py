"""The interface of a backend: batches of one shape in, vectors out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Backend", "Result"]

Result = Callable[[], NDArray[np.float32]]
"""Waits for a batch and gives its vectors, float32 (n, width)."""


class Backend(ABC):
    """Computes a network.

    Attributes:
        name: What the identity of a feature file says, for example ``torch-cpu``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        concurrent: Whether several threads may call :meth:`begin` at once, each computing on one core.
        depth: Batches worth having in work at once; 1 where :meth:`begin` computes before it returns.
        resizes: Whether tiles may come in any size.
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
