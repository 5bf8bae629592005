"""TransMIL: a transformer with Nyström attention over a square of instances.

Source: Shao, Bian, Chen, Wang, Zhang, Ji, Zhang, "TransMIL: Transformer based Correlated Multiple Instance
Learning for Whole Slide Image Classification", NeurIPS 2021, arXiv 2106.00908, algorithms 1 (squaring of the
sequence) and 2 (PPEG); layers as in the authors' code.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.config import TransMilConfig
from wsi_ncmi.mil.dropout import FastDropout
from wsi_ncmi.mil.nystrom import NystromAttention
from wsi_ncmi.mil.segments import promote, segment_sum
from wsi_ncmi.mil.squares import make_squares

__all__ = ["TransMIL"]


class _Layer(nn.Module):
    def __init__(self, width: int, dropout: float, options: TransMilConfig) -> None:
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
    """Position from three depth-wise convolutions over the square of instances (PPEG).

    Convolutions add up: the three and the identity are done as one of the largest kernel, in one pass.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, size, padding=size // 2, groups=width) for size in (7, 5, 3)
        )

    def forward(self, x: Tensor, side: int) -> Tensor:
        b, _, width = x.shape
        weight, bias = self._joined()
        square = x[:, 1:].reshape(b, side, side, width).permute(0, 3, 1, 2)
        placed = nn.functional.conv2d(square, weight, bias, padding="same", groups=width)
        placed = placed.permute(0, 2, 3, 1).reshape(b, side * side, width)
        return torch.cat([x[:, :1].to(placed.dtype), placed], dim=1)

    def _joined(self) -> tuple[Tensor, Tensor]:
        largest, *others = [cast(nn.Conv2d, convolution) for convolution in self.convolutions]
        centre = largest.kernel_size[0] // 2
        weight = largest.weight.clone()
        weight[:, :, centre, centre] += 1.0
        bias = cast(Tensor, largest.bias)
        for other in others:
            weight = weight + nn.functional.pad(other.weight, [centre - other.kernel_size[0] // 2] * 4)
            bias = bias + cast(Tensor, other.bias)
        return weight, bias


class TransMIL(Aggregator):
    """Class token and instances, two layers of Nyström attention, positions between them.

    The bag is filled up to a square with its own first instances. The embedding is the normed class token.
    Bags that fill the same square go together; nothing else is padded, because it would change the result.

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
        options: TransMilConfig | None = None,
    ) -> None:
        super().__init__(in_features, hidden)
        options = options or TransMilConfig()
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
        squares = make_squares(batch)
        results = [self._embed(hidden[square.rows], square.side) for square in squares]
        embedding = torch.cat([embedding for embedding, _ in results])
        order = torch.tensor([bag for square in squares for bag in square.bags], device=hidden.device)
        rows = torch.cat([square.rows.flatten() for square in squares])
        shares = torch.cat([weights.flatten() for _, weights in results])
        # A repeated instance gets the shares of both its places.
        attention = shares.new_zeros(len(hidden)).index_add_(0, rows, shares)
        attention += torch.finfo(attention.dtype).tiny  # equal shares where every number was cut off
        attention = attention / segment_sum(attention, batch)[batch.bag_index]
        return AggregatorOutput(embedding[order.argsort()], attention)

    def _embed(self, square: Tensor, side: int) -> tuple[Tensor, Tensor]:
        tokens = torch.cat([self.token.expand(len(square), 1, -1).to(square.dtype), square], dim=1)
        tokens, _ = self.first(tokens)
        tokens, seen = self.second(self.position(tokens, side), look=True)
        assert seen is not None
        return promote(self.norm(tokens[:, 0])), seen[:, 1:].clamp_min(0.0)
