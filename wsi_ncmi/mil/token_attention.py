"""Multi-head attention of learned query tokens, at the cost of one product an instance.

A learned query does not depend on the instances, so q·(W x + b) is (Wᵀ q)·x + q·b: the key layer folds into
one vector a token and head. Weights that sum to 1 let the value layer act on the pooled instances in place of
each one. The result is that of the plain arithmetic; an instance's cost falls by about a head's width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_ncmi.mil.dropout import FastDropout

__all__ = ["TokenScores", "TokenValues"]


def _linears(width: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(width, width) for _ in range(count))


class TokenScores(nn.Module):
    """Scores (W_q t)_hᵀ (W_k x)_h / √d of T tokens with H heads each; every token has layers of its own.

    Args:
        width: Width of the instances.
        tokens: T.
        heads: H; it divides the width.
    """

    def __init__(self, width: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.tokens = nn.Parameter(torch.randn(tokens, width) * 1e-6)
        self.query = _linears(width, tokens)
        self.key = _linears(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, T · H) of instances (N, width), the heads of a token side by side."""
        rows, offsets = [], []
        for token, query, key in zip(self.tokens, self.query, self.key, strict=True):
            assert isinstance(key, nn.Linear)
            q = query(token).view(self.heads, -1).to(self.tokens.dtype)
            weight = key.weight.view(self.heads, q.shape[1], -1)
            scale = q.shape[1] ** -0.5
            rows.append(torch.einsum("hd,hdx->hx", q, weight) * scale)
            offsets.append((q * key.bias.view(self.heads, -1)).sum(1) * scale)
        return nn.functional.linear(x, torch.cat(rows), torch.cat(offsets))


class TokenValues(nn.Module):
    """What the tokens make of the pooled instances: values, output layer, dropout, norm; each token its own.

    Args:
        width: Width of the instances.
        tokens: T.
        heads: H; it divides the width.
        dropout: Dropout before the norm.
    """

    def __init__(self, width: int, tokens: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.value = _linears(width, tokens)
        self.out = _linears(width, tokens)
        self.norm = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(tokens))
        self.dropout = FastDropout(dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        """Token features (B, T, width) of instances pooled for every token and head, (B, T · H, width)."""
        b, _, width = pooled.shape
        found = []
        parts = pooled.view(b, -1, self.heads, width).unbind(1)
        for part, value, out, norm in zip(parts, self.value, self.out, self.norm, strict=True):
            assert isinstance(value, nn.Linear)
            weight = value.weight.view(self.heads, -1, width)
            mixed = torch.einsum("bhx,hdx->bhd", part, weight).flatten(1) + value.bias
            found.append(norm(self.dropout(out(mixed))))
        return torch.stack(found, dim=1)
