"""The attention branch that several models share: scores of each instance, plain or gated."""

from __future__ import annotations

from torch import Tensor, nn

from wsi_ncmi.mil.dropout import FastDropout

__all__ = ["AttentionScore"]


class AttentionScore(nn.Module):
    """Scores wᵀ tanh(V h), or wᵀ (tanh(V h) ⊙ σ(U h)) with the gate, for K branches that share V and U.

    Source: Ilse et al. 2018, arXiv 1802.04712, equations 8 and 9. V and U are one linear layer.

    Args:
        hidden: Width of the instances.
        width: Width of the branch.
        branches: Scores an instance, K.
        gated: With the gate.
        dropout: Dropout on each factor.
    """

    def __init__(
        self, hidden: int, width: int, *, branches: int = 1, gated: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.gated = gated
        self.branches = nn.Linear(hidden, width * (2 if gated else 1))
        self.dropout = FastDropout(dropout)
        self.score = nn.Linear(width, branches)

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores (N, K) of instances (N, hidden)."""
        branches = self.branches(hidden)
        if self.gated:
            content, gate = branches.chunk(2, dim=1)
            factor = self.dropout(content.tanh()) * self.dropout(gate.sigmoid())
        else:
            factor = self.dropout(branches.tanh())
        scores: Tensor = self.score(factor)
        return scores
