"""Exponential moving average of the weights (Polyak averaging), for validation and the kept model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Follows parameters by ``average ← decay · average + (1 − decay) · value`` and stands in for them.

    The decay grows from 0 as ``min(decay, (1 + t) / (10 + t))`` so that the random start is forgotten at once
    (as in TensorFlow's ``ExponentialMovingAverage``). Buffers are not averaged: the running statistics in
    them are averages already.

    Args:
        parameters: What to follow.
        decay: In ``[0, 1)``; 0 = off, the average is the live value.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._live = list(parameters)
        self._decay = decay
        self._steps = 0
        self._average = [p.detach().clone() for p in self._live] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after an optimiser step."""
        if not self._average:
            return
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._live], 1.0 - decay)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Puts the average in place of the live weights for the length of the block."""
        if not self._average:
            yield
            return
        held = [p.detach().clone() for p in self._live]
        self._write(self._average)
        try:
            yield
        finally:
            self._write(held)

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._live, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, object]:
        """State for the resume checkpoint."""
        return {"steps": self._steps, "average": list(self._average)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restores ``state_dict()``."""
        steps, average = state["steps"], state["average"]
        assert isinstance(steps, int)
        assert isinstance(average, list)
        self._steps = steps
        for mine, saved in zip(self._average, average, strict=True):
            mine.copy_(saved)
