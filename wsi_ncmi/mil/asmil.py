"""ASMIL: query tokens whose attention is held to that of a slowly moving anchor.

Source: Ye, Hamidi, Chi, Li, Pilanci, Ogawa, Haseyama, Plataniotis, "ASMIL: Attention-Stabilized Multiple
Instance Learning for Whole Slide Imaging", ICLR 2026, arXiv 2603.06658: anchor model by moving average,
normalised sigmoid in the anchor, random dropping of tokens; layers, the stabilising loss and the decay as in
the authors' code. That code updates its anchor only where a weight is not a number, so it never moves; here
it moves as the paper says.

A learned query does not depend on the instances, so q·(W x + b) is (Wᵀ q)·x + q·b: the key layer folds into
one vector a token and head. Weights that sum to 1 let the value layer act on the pooled instances in place of
each one. The result is that of the plain arithmetic; an instance's cost falls by about a head's width.
"""

import torch
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.config import AsmilConfig
from wsi_ncmi.mil.segments import promote, segment_branch_sums, segment_mean, segment_softmax, segment_sum


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
    """Values, output layer, dropout and norm of the pooled instances, with weights of its own for each token.

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


def normalised_sigmoid(scores: Tensor, batch: BagBatch) -> Tensor:
    """σ(s_k) / Σ_j σ(s_j) within each bag, (ΣN, K) → (ΣN, K)."""
    weights = promote(scores).sigmoid()
    return weights / (segment_sum(weights, batch) + 1e-8)[batch.bag_index]


class ASMIL(Aggregator):
    """T query tokens attend to the instances, a class token to what they found.

    In training some tokens are dropped from each bag, and the cross-entropy between the anchor's attention
    (normalised sigmoid) and the model's (softmax), averaged over tokens, heads and instances, is added.
    The anchor follows the model at every training step and is part of the state.

    Args:
        in_features: Width D of the instance features.
        num_classes: Number of classes C of the classifier on top; None = none, the embedding is the result.
        hidden: Width of the projection = width of the embedding.
        dropout: Dropout on the attentions' results.
        input_dropout: Dropout on the instance features.
        config: ASMIL's own settings.

    Raises:
        InputError: The heads don't divide the width, or all tokens would be dropped.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int | None = None,
        hidden: int = 512,
        dropout: float = 0.1,
        input_dropout: float = 0.0,
        config: AsmilConfig | None = None,
    ) -> None:
        super().__init__(in_features, hidden)
        self.config = config = config or AsmilConfig()
        if hidden % config.heads or config.dropped >= config.tokens:
            raise InputError(
                f"ASMIL of width {hidden} needs heads that divide it, got {config.heads}, and fewer dropped "
                f"tokens than tokens, got {config.dropped} of {config.tokens}; change model.hidden or "
                "model.asmil."
            )
        self.input_dropout = FastDropout(input_dropout)
        self.projection = nn.Linear(in_features, hidden, bias=False)
        self.scores = TokenScores(hidden, config.tokens, config.heads)
        self.values = TokenValues(hidden, config.tokens, config.heads, dropout)
        self.token = nn.Parameter(torch.zeros(1, hidden))
        self.pooling = nn.MultiheadAttention(hidden, config.heads, batch_first=True)
        self.pooled = nn.Sequential(FastDropout(dropout), nn.LayerNorm(hidden, eps=1e-6))
        self.anchor_projection = nn.Linear(in_features, hidden, bias=False)
        self.anchor_scores = TokenScores(hidden, config.tokens, config.heads)
        for ours, theirs in self._pairs():
            theirs.requires_grad_(False).copy_(ours.detach())
        self.add_head(num_classes)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        ours = [*self.projection.parameters(), *self.scores.parameters()]
        anchor = [*self.anchor_projection.parameters(), *self.anchor_scores.parameters()]
        return list(zip(ours, anchor, strict=True))

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`); the auxiliary loss is ``anchor``.

        A training pass that records gradients also moves the anchor.
        """
        features = self.input_dropout(self.prepared(batch))
        hidden = self.projection(features).relu()
        attention = segment_softmax(self.scores(hidden), batch)
        tokens = self.values(segment_branch_sums(hidden, attention, batch).to(self.input_mean.dtype))
        auxiliary = {}
        if self.training and self.config.anchor_weight > 0:
            auxiliary["anchor"] = self.config.anchor_weight * self._pull(features, attention, batch)
        if self.training and torch.is_grad_enabled():
            self._move_anchor()
        embedding = promote(self.pooled(self._pool(tokens)))
        return AggregatorOutput(embedding, attention.mean(1), auxiliary, attention)

    def _pool(self, tokens: Tensor) -> Tensor:
        b, count, _ = tokens.shape
        dropped = None
        if self.training and self.config.dropped > 0:
            ranks = torch.rand(b, count, device=tokens.device).argsort(dim=1)
            dropped = ranks < self.config.dropped
        query = self.token.expand(b, 1, -1).to(tokens.dtype)
        pooled: Tensor = self.pooling(query, tokens, tokens, key_padding_mask=dropped, need_weights=False)[0]
        return pooled.squeeze(1)

    def _pull(self, features: Tensor, attention: Tensor, batch: BagBatch) -> Tensor:
        with torch.no_grad():
            hidden = self.anchor_projection(features).relu()
            scores = self.anchor_scores(hidden) / self.config.temperature
            target = normalised_sigmoid(scores, batch)
        # The floor keeps the gradient finite where the softmax gave exactly 0.
        return -segment_mean(target * attention.clamp_min(1e-30).log(), batch).mean()

    @torch.no_grad()
    def _move_anchor(self) -> None:
        for ours, theirs in self._pairs():
            theirs.lerp_(ours, 1.0 - self.config.anchor_decay)
