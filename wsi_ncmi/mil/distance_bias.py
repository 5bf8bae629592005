"""Linear biases by distance (ALiBi) in the form that STAMP gives them for slides.

Source: Press, Smith, Lewis, "Train Short, Test Long: Attention with Linear Biases Enables Input Length
Extrapolation", ICLR 2022, arXiv 2108.12409; STAMP subtracts the scaled distances from the softmax itself, and
scales them by the mean distance seen in training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["DistanceBias"]

_QUERIES = 512


class DistanceBias(nn.Module):
    """What the distances take from an attention's result: s_h / μ · Σ_k d(q, k) v_k for every head h.

    Args:
        heads: Heads.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.rand(heads))
        self.mean: Tensor
        self.seen: Tensor
        self.register_buffer("mean", torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    @torch.no_grad()
    def observe(self, places: Tensor, kept: Tensor | None) -> None:
        """Adds a batch to the running mean of distances.

        Args:
            places: (b, M, 2).
            kept: False for padding, (b, M), or None.
        """
        total, count = torch.zeros_like(self.mean), 0
        for bag in range(len(places)):
            points = places[bag] if kept is None else places[bag][kept[bag]]
            for queries in torch.split(points, _QUERIES):
                total += torch.cdist(queries, points).sum()
            count += len(points) ** 2
        self.seen += 1
        self.mean += (total / count - self.mean) / self.seen

    def forward(self, places: Tensor, values: Tensor) -> Tensor:
        """The weighted sums, (b, h, M, d).

        Args:
            places: Places of the instances (b, M, 2).
            values: Their values (b, h, M, d), zero where padded.
        """
        # A few queries at a time, recomputed in the backward pass: never an (M, M) matrix for each head.
        parts = [
            checkpoint(self._weighted, queries, places, values, use_reentrant=False)
            for queries in torch.split(places, _QUERIES, dim=1)
        ]
        # A copy: the next bags of the batch move the mean before the backward pass needs it.
        return torch.cat(parts, dim=2) * (self.slope / self.mean.clone()).view(1, -1, 1, 1)

    @staticmethod
    def _weighted(queries: Tensor, places: Tensor, values: Tensor) -> Tensor:
        return torch.cdist(queries, places).unsqueeze(1) @ values
