"""TransMIL: a transformer with Nyström attention over a square of instances.

Sources: Shao, Bian, Chen, Wang, Zhang, Ji, Zhang, "TransMIL: Transformer based Correlated Multiple Instance
Learning for Whole Slide Image Classification", NeurIPS 2021, arXiv 2106.00908, algorithms 1 (squaring of the
sequence) and 2 (PPEG); layers as in the authors' code. Xiong, Zeng, Chakraborty, Tan, Fung, Li, Singh,
"Nyströmformer", AAAI 2021, arXiv 2102.03902, with its iterative pseudo-inverse and the details of the
implementation that TransMIL builds on (nystrom-attention by lucidrains): zeros in front to a multiple of the
landmarks, one norm for all heads of a bag, and a depth-wise convolution over the values. A few landmarks
stand for all instances, so that memory grows with N alone.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.bags import MAX_ROWS
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.config import TransMilConfig
from wsi_ncmi.mil.segments import promote, segment_sum


@dataclass(frozen=True)
class Square:
    """Some bags of a batch that fill up to the same square.

    Attributes:
        bags: Positions of the bags in the batch.
        rows: Where the instance of each place lies in the packed matrix, int64 (b, side²): the bag's
            instances in their order, then its first ones once more.
        side: Side of the square.
    """

    bags: tuple[int, ...]
    rows: Tensor
    side: int


def make_squares(batch: BagBatch) -> list[Square]:
    """Sorts the bags by the smallest square that holds each: no bag gets a place that it hasn't when alone.

    Source: TransMIL (arXiv 2106.00908), algorithm 1, "squaring of the sequence".

    Args:
        batch: The bags.

    Returns:
        Every bag once, the largest squares first, at most ``MAX_ROWS`` places in one item unless a single
        bag has more.
    """
    bags_of: dict[int, list[int]] = {}
    for bag, size in enumerate(batch.sizes):
        bags_of.setdefault(math.isqrt(size - 1) + 1, []).append(bag)
    squares = []
    for side in sorted(bags_of, reverse=True):
        most = max(MAX_ROWS // side**2, 1)
        for begin in range(0, len(bags_of[side]), most):
            bags = bags_of[side][begin : begin + most]
            squares.append(Square(tuple(bags), _rows(bags, side, batch), side))
    return squares


def _rows(bags: list[int], side: int, batch: BagBatch) -> Tensor:
    chosen = torch.tensor(bags, device=batch.lengths.device)
    first, lengths = batch.offsets[chosen].unsqueeze(1), batch.lengths[chosen].unsqueeze(1)
    return first + torch.arange(side * side, device=chosen.device) % lengths


def iterative_pinv(x: Tensor, norm: Tensor, iterations: int) -> Tensor:
    """Approximate pseudo-inverse of matrices (b, h, m, m).

    Args:
        x: The matrices.
        norm: What the start xᵀ is divided by, (b,): largest row sum times largest column sum.
        iterations: Steps.
    """
    size = x.shape[-1]
    z = (x.transpose(-1, -2) / norm.view(-1, 1, 1, 1)).reshape(-1, size, size)
    minus_x = -x.reshape(-1, size, size)
    unit = torch.eye(size, dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        # z/4 (13 − xz (15 − xz (7 − xz))), with signs and the quarter moved so that a product ends each line
        a = torch.bmm(minus_x, z)
        inner = torch.add(1.75 * unit, a, alpha=0.25)
        inner = torch.baddbmm(3.75 * unit, a, inner)
        inner = torch.baddbmm(3.25 * unit, a, inner)
        z = torch.bmm(z, inner)
    return z.view(x.shape)


class NystromAttention(nn.Module):
    """Multi-head self-attention through landmarks, with a convolution of the values added.

    The products are ordered so that nothing larger than N × (width of a head) and landmarks² is kept. The
    zeros in front are never made: as keys they count as one with a weight, and the landmarks that consist of
    them alone are all the same, so the matrix between landmarks acts on their common direction as one row.
    The result is that of the plain arithmetic; on short bags it takes a fraction of the time.

    Args:
        width: Width of the tokens.
        heads: Heads; they divide the width.
        landmarks: Landmarks m.
        iterations: Steps of the pseudo-inverse.
        residual_kernel: Length of the convolution over the values, odd.
        dropout: Dropout on the result.

    Raises:
        InputError: The heads don't divide the width, or the kernel is even.
    """

    def __init__(
        self, width: int, *, heads: int, landmarks: int, iterations: int, residual_kernel: int, dropout: float
    ) -> None:
        super().__init__()
        if width % heads or residual_kernel % 2 == 0:
            raise InputError(
                f"A transformer of width {width} needs heads that divide it, got {heads}, and an odd "
                f"residual kernel, got {residual_kernel}; change model.hidden, or the heads and the kernel."
            )
        self.heads, self.landmarks, self.iterations = heads, landmarks, iterations
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.dropout = FastDropout(dropout)
        padding = (residual_kernel // 2, 0)
        self.residual = nn.Conv2d(
            heads, heads, (residual_kernel, 1), padding=padding, groups=heads, bias=False
        )

    def forward(self, x: Tensor, *, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attends within each bag.

        Args:
            x: Tokens (b, n, width).
            need_weights: Return the attention of the first token too.

        Returns:
            Tokens (b, n, width), and the first token's row of the approximate attention averaged over the
            heads, (b, n), without gradient; its numbers may be negative.
        """
        b, n, width = x.shape
        qkv = promote(self.qkv(x))
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = qkv.view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q = q * self.scale
            (q_marks, count), (k_marks, _) = self._marks(q), self._marks(k)
            # A group of ``count`` equal landmarks weighs as exp(log count) in a softmax.
            bias, root = count.log(), count.sqrt()
            between = (q_marks @ k_marks.transpose(-1, -2) + bias).softmax(-1)
            columns = (between * count.unsqueeze(1)).sum(-2) / count
            inverse = iterative_pinv(
                between * root.unsqueeze(1) / root, columns.amax((1, 2)), self.iterations
            )
            keys, values, key_bias = self._keys(k, v)
            found = scaled_dot_product_attention(q_marks, keys, values, attn_mask=key_bias, scale=1.0)
            gathered = inverse @ (found * root.unsqueeze(1)) / root.unsqueeze(1)
            mixed = scaled_dot_product_attention(
                q, k_marks, gathered, attn_mask=bias.expand(1, 1, n, -1), scale=1.0
            ) + self._convolved(v)
            seen = None
            if need_weights:
                through = (q[:, :, :1] @ k_marks.transpose(-1, -2) + bias).softmax(-1) / root
                seen = self._class_token_weights((through @ inverse) * root, q_marks, keys, key_bias)[:, -n:]
        mixed = mixed.transpose(1, 2).reshape(b, n, width)
        return self.dropout(self.out(mixed.to(self.out.weight.dtype))), seen

    def _marks(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # Means of groups of tokens, zeros in front; those of zeros alone as one, and how many each is.
        group = -(-t.shape[2] // self.landmarks)
        front = group * self.landmarks - t.shape[2]
        empty = front // group
        padded = pad(t, (0, 0, front - empty * group, 0))
        marks = padded.reshape(*t.shape[:2], self.landmarks - empty, group, t.shape[3]).mean(3)
        count = torch.ones(marks.shape[2], dtype=t.dtype, device=t.device)
        if empty:
            return pad(marks, (0, 0, 1, 0)), pad(count, (1, 0), value=float(empty))
        return marks, count

    def _keys(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        # The zeros in front are one key and one value of nothing, with the weight of them all.
        front = -k.shape[2] % self.landmarks
        if not front:
            return k, v, None
        bias = pad(k.new_zeros(k.shape[2]), (1, 0), value=math.log(front))
        return pad(k, (0, 0, 1, 0)), pad(v, (0, 0, 1, 0)), bias.expand(1, 1, 1, -1)

    def _convolved(self, v: Tensor) -> Tensor:
        return nn.functional.conv2d(
            v, self.residual.weight.to(v.dtype), padding=self.residual.padding, groups=self.heads
        )

    @torch.no_grad()
    def _class_token_weights(
        self, through: Tensor, q_marks: Tensor, keys: Tensor, bias: Tensor | None
    ) -> Tensor:
        # Head by head: one (landmarks × N) matrix in memory at a time.
        seen = keys.new_zeros(keys.shape[0], keys.shape[2])
        for h in range(self.heads):
            scores = q_marks[:, h] @ keys[:, h].transpose(-1, -2)
            scores = scores if bias is None else scores + bias.view(1, 1, -1)
            seen += (through[:, h] @ scores.softmax(-1)).squeeze(1)
        return seen / self.heads


class _Layer(nn.Module):
    def __init__(self, width: int, dropout: float, config: TransMilConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = NystromAttention(
            width,
            heads=config.heads,
            landmarks=config.landmarks or max(width // 2, 1),
            iterations=config.pinv_iterations,
            residual_kernel=config.residual_kernel,
            dropout=dropout,
        )

    def forward(self, x: Tensor, *, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        mixed, seen = self.attention(self.norm(x), need_weights=need_weights)
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
        num_classes: Number of classes C of the classifier on top; None = none, the embedding is the result.
        hidden: Width of the tokens = width of the embedding.
        dropout: Dropout on the attention's result.
        input_dropout: Dropout on the instance features.
        config: TransMIL's own settings.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int | None = None,
        hidden: int = 512,
        dropout: float = 0.1,
        input_dropout: float = 0.0,
        config: TransMilConfig | None = None,
    ) -> None:
        super().__init__(in_features, hidden)
        config = config or TransMilConfig()
        self.input_dropout = FastDropout(input_dropout)
        self.projection = nn.Linear(in_features, hidden)
        self.token = nn.Parameter(torch.randn(1, 1, hidden))
        self.first = _Layer(hidden, dropout, config)
        self.position = _PyramidPosition(hidden)
        self.second = _Layer(hidden, dropout, config)
        self.norm = nn.LayerNorm(hidden)
        self.add_head(num_classes)

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
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
        tokens, seen = self.second(self.position(tokens, side), need_weights=True)
        assert seen is not None
        return promote(self.norm(tokens[:, 0])), seen[:, 1:].clamp_min(0.0)
