"""ACMIL: diverse attention branches, with their most attended instances masked at random.

Source: Zhang, Li, Sun, Zheng, Zhu, Yang, "Attention-Challenging Multiple Instance Learning for Whole Slide
Image Classification", ECCV 2024, arXiv 2311.07125: multiple branch attention (MBA) with its semantic and
diversity losses, stochastic top-K instance masking (STKIM); the form ACMIL_GA of the authors' code.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wsi_ncmi.mil.abmil import AttentionScore
from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.config import AcmilConfig
from wsi_ncmi.mil.segments import promote, segment_branch_sums, segment_softmax


@torch.no_grad()
def mask_most_attended(scores: Tensor, batch: BagBatch, count: int, share: float) -> Tensor:
    """Chooses a random part of each branch's ``count`` best instances.

    Args:
        scores: (ΣN, K).
        batch: The bags.
        count: Instances of highest score among which is drawn; a smaller bag gives all.
        share: Part of them that is chosen (rounded down, so never all of a bag).

    Returns:
        True where an instance is to be masked, bool (ΣN, K).
    """
    masks = []
    for bag in torch.split(scores, batch.sizes):
        best = bag.topk(min(count, len(bag)), dim=0).indices.T
        drawn = torch.rand(best.shape, device=best.device).argsort(dim=1)[:, : int(best.shape[1] * share)]
        mask = torch.zeros(bag.shape[::-1], dtype=torch.bool, device=bag.device)
        masks.append(mask.scatter_(1, best.gather(1, drawn), True).T)
    return torch.cat(masks)


class ACMIL(Aggregator):
    """K gated attention branches; the embedding is Σ_k ā_k h_k with ā the mean of the branches.

    In training each branch has a classifier of its own (semantic loss), the branches' attentions are kept
    from being alike (diversity loss), and part of each branch's best instances is masked.

    Args:
        in_features: Width D of the instance features.
        num_classes: C.
        hidden: Width of the projection = width of the embedding.
        attention: Width of the attention branch.
        dropout: Dropout after the projection.
        input_dropout: Dropout on the instance features.
        config: ACMIL's own settings.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden: int = 512,
        attention: int = 128,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        config: AcmilConfig | None = None,
    ) -> None:
        super().__init__(in_features, hidden)
        self.config = config or AcmilConfig()
        self.num_classes = num_classes
        self.input_dropout = FastDropout(input_dropout)
        self.projection = nn.Linear(in_features, hidden, bias=False)
        self.dropout = FastDropout(dropout)
        self.score = AttentionScore(hidden, attention, branches=self.config.branches)
        heads = (nn.Linear(hidden, num_classes) for _ in range(self.config.branches))
        self.classifiers = nn.ModuleList(heads)
        self.add_head(num_classes)

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`); auxiliary losses ``branches`` and ``diversity``."""
        hidden = self.dropout(self.projection(self.input_dropout(self.prepared(batch))).relu())
        scores = promote(self.score(hidden))
        if self.training and self.config.masked > 0:
            masked = mask_most_attended(scores, batch, self.config.masked, self.config.mask_share)
            scores = scores.masked_fill(masked, -1e9)
        attention = segment_softmax(scores, batch)
        features = segment_branch_sums(hidden, attention, batch)
        auxiliary = self._auxiliary(features, attention, batch, labels) if self.training else {}
        return AggregatorOutput(features.mean(1), attention.mean(1), auxiliary, attention)

    def _auxiliary(
        self, features: Tensor, attention: Tensor, batch: BagBatch, labels: Tensor | None
    ) -> dict[str, Tensor]:
        config = self.config
        terms: dict[str, Tensor] = {}
        if config.branches < 2:  # the published code turns both off for a single branch
            return terms
        if config.branch_weight > 0:
            known = self.needed_labels(labels, batch, "a loss of its branches")
            parts = zip(self.classifiers, features.unbind(1), strict=True)
            losses = [
                cross_entropy(promote(head(part.to(self.input_mean.dtype))), known) for head, part in parts
            ]
            terms["branches"] = config.branch_weight * torch.stack(losses).mean()
        if config.diversity_weight > 0:
            inner = segment_branch_sums(attention, attention, batch)
            norms = inner.diagonal(dim1=1, dim2=2).sqrt().clamp_min(1e-8)
            alike = inner / (norms.unsqueeze(1) * norms.unsqueeze(2))
            rows, columns = torch.triu_indices(config.branches, config.branches, 1, device=inner.device)
            terms["diversity"] = config.diversity_weight * alike[:, rows, columns].mean()
        return terms
