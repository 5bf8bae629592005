"""Attention-based deep multiple-instance learning, plain and gated.

Source: Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018,
arXiv 1802.04712, equations 7–9.
"""

import torch
from torch import Tensor, nn

from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.fused_attention import attention_pool
from wsi_ncmi.mil.segments import segment_softmax, segment_weighted_sum


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


class ABMIL(Aggregator):
    """Attention pooling with a_k = softmax_k(wᵀ tanh(V h_k)), embedding Σ a_k h_k (equations 7 and 8).

    Each instance is first projected, h = dropout(relu(W x + b)).

    Args:
        in_features: Width D of the instance features.
        num_classes: Number of classes C of the classifier on top; None = none, the embedding is the result.
        hidden: Width of the projection = width of the embedding.
        attention: Width of the attention branch.
        dropout: Dropout probability after the projection and inside the attention branch.
        input_dropout: Dropout probability on the instance features.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int | None = None,
        hidden: int = 128,
        attention: int = 64,
        dropout: float = 0.25,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, hidden)
        self.input_dropout = FastDropout(input_dropout)
        self.projection = nn.Linear(in_features, hidden)
        self.dropout = FastDropout(dropout)
        self.branches = nn.Linear(hidden, self._branch_count() * attention)
        self.score = nn.Linear(attention, 1)
        self.add_head(num_classes)

    @staticmethod
    def _branch_count() -> int:
        return 1

    def _activate(self, branches: Tensor) -> Tensor:
        return branches.tanh()

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`)."""
        features = self.input_dropout(self.prepared(batch))
        if self.training and _fits_fused(features):
            return self._fused(features, batch)
        hidden = self.dropout(self.projection(features).relu())
        scores = self.score(self.dropout(self._activate(self.branches(hidden)))).squeeze(1)
        attention = segment_softmax(scores, batch)
        return AggregatorOutput(segment_weighted_sum(hidden, attention, batch), attention)

    def _fused(self, features: Tensor, batch: BagBatch) -> AggregatorOutput:
        layers = (self.projection, self.branches, self.score)
        weights = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
        embedding, attention = attention_pool(
            features, weights, [self.dropout] * 2, batch, gated=self._branch_count() == 2
        )
        return AggregatorOutput(embedding, attention)


def _fits_fused(features: Tensor) -> bool:
    return (
        features.device.type == "cpu"
        and features.dtype in (torch.float32, torch.float64)
        and torch.is_grad_enabled()
    )


class GatedABMIL(ABMIL):
    """ABMIL with a gate: a_k = softmax_k(wᵀ (tanh(V h_k) ⊙ σ(U h_k))) (equation 9).

    V and U are the two halves of one linear layer, which takes one matrix product in place of two.
    """

    @staticmethod
    def _branch_count() -> int:
        return 2

    def _activate(self, branches: Tensor) -> Tensor:
        content, gate = branches.chunk(2, dim=1)
        return content.tanh() * gate.sigmoid()
