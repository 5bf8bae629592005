"""TransMIL: a transformer with Nyström attention over a square of instances.

Source: Shao, Bian, Chen, Wang, Zhang, Ji, Zhang, "TransMIL: Transformer based Correlated Multiple Instance
Learning for Whole Slide Image Classification", NeurIPS 2021, arXiv 2106.00908, algorithms 1 (squaring of the
sequence) and 2 (PPEG); layers as in the authors' code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.buckets import make_buckets, scatter_buckets
from wsi_ncmi.mil.dropout import FastDropout
from wsi_ncmi.mil.nystrom import NystromAttention
from wsi_ncmi.mil.options import TransMilOptions
from wsi_ncmi.mil.segments import promote

__all__ = ["TransMIL"]


class _Layer(nn.Module):
    def __init__(self, width: int, dropout: float, options: TransMilOptions) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = NystromAttention(
            width,
            heads=options.heads,
            landmarks=options.landmarks or max(width // 2, 1),
            iterations=options.pinv_iterations,
            residual_kernel=options.residual_kernel,
            dropout=dropout,
        )

    def forward(self, x: Tensor, *, look: bool = False) -> tuple[Tensor, Tensor | None]:
        mixed, seen = self.attention(self.norm(x), look=look)
        return x + mixed, seen


class _PyramidPosition(nn.Module):
    """Position from three depth-wise convolutions over the square of instances (PPEG)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, size, padding=size // 2, groups=width) for size in (7, 5, 3)
        )

    def forward(self, x: Tensor, side: int) -> Tensor:
        b, _, width = x.shape
        square = x[:, 1:].transpose(1, 2).reshape(b, width, side, side)
        total = square
        for convolution in self.convolutions:
            total = total + convolution(square)
        return torch.cat([x[:, :1].to(total.dtype), total.flatten(2).transpose(1, 2)], dim=1)


class TransMIL(Aggregator):
    """Class token and instances, two layers of Nyström attention, positions between them.

    The bag is filled up to a square with its own first instances. The embedding is the normed class token.
    Bags of equal length go together; nothing else is padded, because every filling would change the result.

    The reported attention is the class token's row of the last layer's approximate attention, averaged over
    the heads, negative numbers cut off, a repeated instance's shares added, and the sum made 1.

    Args:
        in_features: Width D of the instance features.
        hidden: Width of the tokens = width of the embedding.
        dropout: Dropout on the attention's result.
        input_dropout: Dropout on the instance features.
        options: TransMIL's own settings.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int = 512,
        dropout: float = 0.1,
        input_dropout: float = 0.0,
        options: TransMilOptions | None = None,
    ) -> None:
        super().__init__(in_features, hidden)
        options = options or TransMilOptions()
        self.input_dropout = FastDropout(input_dropout)
        self.projection = nn.Linear(in_features, hidden)
        self.token = nn.Parameter(torch.randn(1, 1, hidden))
        self.first = _Layer(hidden, dropout, options)
        self.position = _PyramidPosition(hidden)
        self.second = _Layer(hidden, dropout, options)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`)."""
        hidden = self.projection(self.input_dropout(self.prepared(batch))).relu()
        buckets = make_buckets(batch)
        results = [self._embed(hidden[bucket.rows]) for bucket in buckets]
        embedding, attention = scatter_buckets(
            buckets, [embedding for embedding, _ in results], [attention for _, attention in results]
        )
        return AggregatorOutput(embedding, attention)

    def _embed(self, instances: Tensor) -> tuple[Tensor, Tensor]:
        b, n, _ = instances.shape
        side = math.isqrt(n - 1) + 1
        repeated = side * side - n
        tokens = torch.cat(
            [self.token.expand(b, -1, -1).to(instances.dtype), instances, instances[:, :repeated]], dim=1
        )
        tokens, _ = self.first(tokens)
        tokens, seen = self.second(self.position(tokens, side), look=True)
        weights = seen[:, 1:].clamp_min(0.0)
        attention = weights[:, :n].clone()
        attention[:, :repeated] += weights[:, n:]
        attention += torch.finfo(attention.dtype).tiny  # equal shares where every number was cut off
        return promote(self.norm(tokens[:, 0])), attention / attention.sum(1, keepdim=True)
