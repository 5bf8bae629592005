"""A plain transformer over the instances with a class token, as in STAMP, with linear biases by distance.

Sources: El Nahhas et al., "From whole-slide image to biomarker prediction: end-to-end weakly supervised deep
learning in computational pathology", Nature Protocols 20 (2025), arXiv 2312.10944; layers and sizes as the
``vit`` of the authors' code (version 2). Press, Smith, Lewis, "Train Short, Test Long: Attention with Linear
Biases Enables Input Length Extrapolation", ICLR 2022, arXiv 2108.12409; STAMP subtracts the scaled distances
from the softmax itself, and scales them by the mean distance seen in training.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.bags import make_buckets, scatter_buckets
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.config import VitConfig
from wsi_ncmi.mil.segments import promote

_QUERIES = 512


class DistanceBias(nn.Module):
    """Distance term that an attention's result loses: s_h / μ · Σ_k d(q, k) v_k for every head h.

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
    def observe(self, coords: Tensor, kept: Tensor | None) -> None:
        """Adds a batch to the running mean of distances.

        Args:
            coords: (b, M, 2).
            kept: False for padding, (b, M), or None.
        """
        total, count = torch.zeros_like(self.mean), 0
        for bag in range(len(coords)):
            points = coords[bag] if kept is None else coords[bag][kept[bag]]
            for queries in torch.split(points, _QUERIES):
                total += torch.cdist(queries, points).sum()
            count += len(points) ** 2
        self.seen += 1
        self.mean += (total / count - self.mean) / self.seen

    def forward(self, coords: Tensor, values: Tensor) -> Tensor:
        """The weighted sums, (b, h, M, d).

        Args:
            coords: Coordinates of the instances (b, M, 2).
            values: Their values (b, h, M, d), zero where padded.
        """
        # A few queries at a time, recomputed in the backward pass: never an (M, M) matrix for each head.
        parts = [
            checkpoint(self._weighted, queries, coords, values, use_reentrant=False)
            for queries in torch.split(coords, _QUERIES, dim=1)
        ]
        # A copy: the next bags of the batch move the mean before the backward pass needs it.
        return torch.cat(parts, dim=2) * (self.slope / self.mean.clone()).view(1, -1, 1, 1)

    @staticmethod
    def _weighted(queries: Tensor, coords: Tensor, values: Tensor) -> Tensor:
        return torch.cdist(queries, coords).unsqueeze(1) @ values


_MAX_PADDING = 0.2


class _SelfAttention(nn.Module):
    def __init__(self, width: int, dropout: float, config: VitConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.distance = DistanceBias(config.heads) if config.alibi else None
        nn.init.xavier_uniform_(self.qkv.weight)  # as torch's own multi-head attention starts
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, x: Tensor, kept: Tensor | None, coords: Tensor | None, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        b, n, width = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if kept is None else kept.view(b, 1, 1, n)
        share = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=share)
        if self.distance is not None and coords is not None:
            tiles = promote(v[:, :, 1:]) if kept is None else promote(v[:, :, 1:]) * kept[:, None, 1:, None]
            if self.training:
                self.distance.observe(coords, None if kept is None else kept[:, 1:])
            taken = self.distance(coords, tiles)
            mixed = torch.cat([mixed[:, :, :1], (mixed[:, :, 1:] - taken).to(mixed.dtype)], dim=2)
        seen = self._class_token_weights(q[:, :, :1], k, mask) if need_weights else None
        return self.out(mixed.transpose(1, 2).reshape(b, n, width)), seen

    @torch.no_grad()
    def _class_token_weights(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        scores = promote(q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        seen: Tensor = scores.softmax(-1).mean(1).squeeze(1)[:, 1:]
        seen = seen + torch.finfo(seen.dtype).tiny  # a class token may attend to itself alone
        return seen / seen.sum(1, keepdim=True)


class _Layer(nn.Module):
    def __init__(self, width: int, dropout: float, config: VitConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = _SelfAttention(width, dropout, config)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.feed_forward),
            nn.GELU(),
            FastDropout(config.feed_forward_dropout),
            nn.Linear(config.feed_forward, width),
            FastDropout(config.feed_forward_dropout),
        )

    def forward(
        self, x: Tensor, kept: Tensor | None, coords: Tensor | None, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        mixed, seen = self.attention(self.norm(x), kept, coords, need_weights=need_weights)
        x = x + mixed
        return x + self.feed_forward(x), seen


class VisionTransformer(Aggregator):
    """Full self-attention among all instances; the embedding is the normed class token.

    Bags of similar length are padded to the longest of them (at most a fifth) and the padding is masked out.
    The reported attention is what the class token gives the instances in the last layer, averaged over the
    heads, its share for itself left out. With ``alibi`` that is the attention before the distance biases.

    Args:
        in_features: Width D of the instance features.
        num_classes: Number of classes C of the classifier on top; None = none, the embedding is the result.
        hidden: Width of the tokens = width of the embedding.
        dropout: Dropout after the projection and on the attention's weights; on the CPU above 0 it costs
            memory that grows with N² in training.
        input_dropout: Dropout on the instance features.
        config: The transformer's own settings.

    Raises:
        InputError: The heads don't divide the width.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int | None = None,
        hidden: int = 512,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        config: VitConfig | None = None,
    ) -> None:
        super().__init__(in_features, hidden)
        config = config or VitConfig()
        if hidden % config.heads:
            raise InputError(
                f"A transformer of width {hidden} needs heads that divide it, got {config.heads}; change "
                "model.hidden or model.vit.heads."
            )
        self.alibi = config.alibi
        self.input_dropout = FastDropout(input_dropout)
        self.projection = nn.Linear(in_features, hidden)
        self.dropout = FastDropout(dropout)
        self.token = nn.Parameter(torch.randn(hidden))
        self.layers = nn.ModuleList(_Layer(hidden, dropout, config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(hidden)
        self.add_head(num_classes)

    @property
    def needs_coordinates(self) -> bool:
        """True with distance biases."""
        return self.alibi

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`).

        Raises:
            InputError: Distance biases without the tiles' coordinates.
        """
        if self.alibi and batch.coordinates is None:
            raise InputError(
                "The distance biases of 'vit' need the tiles' coordinates, which these bags lack; set "
                "model.vit.alibi to false."
            )
        features = self.input_dropout(self.prepared(batch))
        hidden = self.dropout(nn.functional.gelu(self.projection(features)))
        buckets = make_buckets(batch, slack=_MAX_PADDING)
        results = []
        for bucket in buckets:
            coords = None
            if self.alibi and batch.coordinates is not None:
                coords = batch.coordinates[bucket.rows].to(self.token.dtype)
            results.append(self._embed(hidden[bucket.rows], bucket.kept, coords))
        embedding, attention = scatter_buckets(
            buckets, [embedding for embedding, _ in results], [attention for _, attention in results]
        )
        return AggregatorOutput(embedding, attention)

    def _embed(self, instances: Tensor, kept: Tensor | None, coords: Tensor | None) -> tuple[Tensor, Tensor]:
        tokens = torch.cat([self.token.expand(len(instances), 1, -1).to(instances.dtype), instances], dim=1)
        if kept is not None:
            kept = nn.functional.pad(kept, (1, 0), value=True)
        seen: Tensor | None = None
        for position, layer in enumerate(self.layers):
            tokens, seen = layer(tokens, kept, coords, need_weights=position == len(self.layers) - 1)
        assert seen is not None
        return promote(self.norm(tokens[:, 0])), seen
