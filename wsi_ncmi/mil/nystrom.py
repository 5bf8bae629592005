"""Nyström self-attention: a few landmarks stand for all instances, so that memory grows with N alone.

Source: Xiong, Zeng, Chakraborty, Tan, Fung, Li, Singh, "Nyströmformer", AAAI 2021, arXiv 2102.03902, with its
iterative pseudo-inverse and the details of the implementation that TransMIL builds on (nystrom-attention by
lucidrains): zeros in front to a multiple of the landmarks, one norm for all heads of a bag, and a depth-wise
convolution over the values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from wsi_ncmi.errors import InputError
from wsi_ncmi.mil.dropout import FastDropout
from wsi_ncmi.mil.segments import promote

__all__ = ["NystromAttention", "iterative_pinv"]


def iterative_pinv(x: Tensor, iterations: int) -> Tensor:
    """Approximate pseudo-inverse of softmax matrices (b, h, m, m).

    The start is xᵀ over the largest row sum times the largest column sum among the heads of a bag.
    """
    sums = x.abs()
    norm = sums.sum(-1).amax((1, 2)) * sums.sum(-2).amax((1, 2))
    z = x.transpose(-1, -2) / norm.view(-1, 1, 1, 1)
    unit = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        xz = x @ z
        z = 0.25 * z @ (13.0 * unit - xz @ (15.0 * unit - xz @ (7.0 * unit - xz)))
    return z


class NystromAttention(nn.Module):
    """Multi-head self-attention through landmarks, with a convolution of the values added.

    The products are ordered so that nothing larger than N × (width of a head) and landmarks² is kept.

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

    def forward(self, x: Tensor, *, look: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attends within each bag.

        Args:
            x: Tokens (b, n, width).
            look: Whether to return what the first token looks at.

        Returns:
            Tokens (b, n, width), and the first token's row of the approximate attention averaged over the
            heads, (b, n), without gradient; its numbers may be negative.
        """
        b, n, width = x.shape
        front = -n % self.landmarks
        qkv = promote(self.qkv(pad(x, (0, 0, front, 0))))
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = qkv.view(b, n + front, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q = q * self.scale
            q_marks, k_marks = (
                t.reshape(b, self.heads, self.landmarks, -1, t.shape[-1]).mean(3) for t in (q, k)
            )
            between = (q_marks @ k_marks.transpose(-1, -2)).softmax(-1)
            inverse = iterative_pinv(between, self.iterations)
            gathered = inverse @ scaled_dot_product_attention(q_marks, k, v, scale=1.0)
            mixed = scaled_dot_product_attention(q, k_marks, gathered, scale=1.0)
            mixed = mixed + nn.functional.conv2d(
                v, self.residual.weight.to(v.dtype), padding=self.residual.padding, groups=self.heads
            )  # fmt: skip
            seen = self._look(q[:, :, front], k_marks, inverse, q_marks, k)[:, front:] if look else None
        mixed = mixed.transpose(1, 2).reshape(b, n + front, width)
        return self.dropout(self.out(mixed[:, front:])), seen

    @torch.no_grad()
    def _look(self, q: Tensor, k_marks: Tensor, inverse: Tensor, q_marks: Tensor, k: Tensor) -> Tensor:
        # Head by head: one (landmarks × N) matrix in memory at a time.
        seen = k.new_zeros(k.shape[0], k.shape[2])
        for h in range(self.heads):
            through = (q[:, h].unsqueeze(1) @ k_marks[:, h].transpose(-1, -2)).softmax(-1) @ inverse[:, h]
            seen += (through @ (q_marks[:, h] @ k[:, h].transpose(-1, -2)).softmax(-1)).squeeze(1)
        return seen / self.heads
