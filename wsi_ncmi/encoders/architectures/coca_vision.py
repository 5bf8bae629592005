"""The image side of CoCa as CONCH trained it: a vision transformer read out by one learned query."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["AttentionPool", "CocaVision"]


class AttentionPool(nn.Module):
    """Multi-head attention of learned queries over tokens (Yu et al. 2022, CoCa, section 3.2).

    Args:
        width: Width of the queries and of the output.
        tokens: Width of the tokens.
        heads: Attention heads.
    """

    def __init__(self, width: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, width))
        self.attn = nn.MultiheadAttention(width, heads, kdim=tokens, vdim=tokens, batch_first=True)
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens (n, k, tokens) to (n, width)."""
        tokens = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(tokens.shape[0], -1, -1)
        pooled: Tensor = self.attn(query, tokens, tokens, need_weights=False)[0]
        return pooled[:, 0]


class CocaVision(nn.Module):
    """Vision transformer, attention pool, layer norm: CONCH's image embedding before its projection.

    Args:
        trunk: Transformer that gives all its tokens, the class token among them.
        width: Width of the embedding.
        heads: Heads of the pool.
    """

    def __init__(self, trunk: nn.Module, width: int, heads: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.attn_pool_contrast = AttentionPool(width, int(trunk.num_features), heads)  # type: ignore[arg-type]
        self.ln_contrast = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (n, 3, px, px) to (n, width)."""
        pooled: Tensor = self.ln_contrast(self.attn_pool_contrast(self.trunk(pixels)))
        return pooled
