"""DTFD-MIL: a slide is split into pseudo-bags, and their distilled features are pooled once more.

Source: Zhang, Meng, Zhao, Qiao, Yang, Coupland, Zheng, "DTFD-MIL: Double-Tier Feature Distillation Multiple
Instance Learning for Histopathology Whole Slide Image Classification", CVPR 2022, arXiv 2203.12081: instance
probabilities derived from class activation, distillation by MaxS, MaxMinS, MAS or AFS; layers as in the
authors' code.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wsi_ncmi.mil.abmil import AttentionScore
from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.config import DtfdConfig
from wsi_ncmi.mil.segments import promote, segment_softmax, segment_top, segment_weighted_sum


def split_pseudo_bags(size: int, parts: int, *, shuffled: bool) -> tuple[Tensor, list[int]]:
    """Deals the instances of a bag into near-equal pseudo-bags.

    Args:
        size: Instances N.
        parts: Pseudo-bags G; a smaller bag makes N of one instance.
        shuffled: At random, as in training; else in turn (instance i to pseudo-bag i mod G), so that a slide
            always gets the same answer and neighbours go to different pseudo-bags.

    Returns:
        Positions in the bag, pseudo-bag after pseudo-bag, int64 (N,), and the pseudo-bags' sizes.
    """
    parts = min(parts, size)
    sizes = [size // parts + (part < size % parts) for part in range(parts)]
    if shuffled:
        return torch.randperm(size), sizes
    return torch.cat([torch.arange(part, size, parts) for part in range(parts)]), sizes


class DTFD(Aggregator):
    """Two tiers of gated attention: instances to pseudo-bags, what they hand on to the slide embedding.

    As published, the loss of the slides doesn't reach the first tier (unless ``joint``): in a loop of one's
    own it learns by the term that ``model(features, labels=labels)`` gives beside the logits.

    Args:
        in_features: Width D of the instance features.
        num_classes: C.
        hidden: Width of the projection = width of the embedding.
        attention: Width of the attention branches.
        dropout: Dropout in front of the first tier's classifier.
        input_dropout: Dropout on the instance features.
        config: DTFD's own settings.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden: int = 512,
        attention: int = 128,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        config: DtfdConfig | None = None,
    ) -> None:
        super().__init__(in_features, hidden)
        self.config = config or DtfdConfig()
        self.input_dropout = FastDropout(input_dropout)
        self.projection = nn.Linear(in_features, hidden, bias=False)
        self.first = AttentionScore(hidden, attention)
        self.dropout = FastDropout(dropout)
        self.classifier = nn.Linear(hidden, num_classes)
        self.second = AttentionScore(hidden, attention)
        self.add_head(num_classes)

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`); the auxiliary loss is ``first_tier``."""
        order, counts, groups = self._grouped(batch)
        hidden = self.projection(groups.features).relu()
        weights = segment_softmax(self.first(hidden).squeeze(1), groups)
        distilled = segment_weighted_sum(hidden, weights, groups)
        logits = promote(self.classifier(self.dropout(distilled.to(self.input_mean.dtype))))
        rows: Tensor | None = None
        handed = distilled
        if self.config.distillation != "afs":
            rows, counts = self._chosen(hidden, weights, logits, groups, counts)
            handed = promote(hidden[rows])
        if not self.config.joint:
            # The published code steps the first tier's optimiser before the second tier's loss reaches it.
            handed = handed.detach()
        slides = BagBatch(handed, torch.tensor(counts, device=handed.device))
        shares = segment_softmax(self.second(handed.to(self.input_mean.dtype)).squeeze(1), slides)
        embedding = segment_weighted_sum(handed, shares, slides)
        if rows is None:
            reported = weights * shares[groups.bag_index]
        else:
            reported = weights.new_zeros(weights.shape).index_add_(0, rows, shares)
        attention = torch.empty_like(reported).index_copy_(0, order, reported)
        auxiliary = {}
        if self.training and self.config.first_tier_weight > 0:
            known = self.needed_labels(labels, batch, "a loss of its pseudo-bags")
            auxiliary["first_tier"] = self.config.first_tier_weight * self._loss(logits, known, batch)
        return AggregatorOutput(embedding, attention, auxiliary)

    def _parts(self, batch: BagBatch) -> list[int]:
        return [min(self.config.pseudo_bags, size) for size in batch.sizes]

    def _grouped(self, batch: BagBatch) -> tuple[Tensor, list[int], BagBatch]:
        # The pseudo-bags as a batch of their own, the way back, and how many each slide has.
        features = self.input_dropout(self.prepared(batch))
        orders, sizes, start = [], [], 0
        for size in batch.sizes:
            order, counts = split_pseudo_bags(size, self.config.pseudo_bags, shuffled=self.training)
            orders.append(order + start)
            sizes += counts
            start += size
        order = torch.cat(orders).to(features.device)
        return order, self._parts(batch), BagBatch(features, batch.lengths).select(order, sizes)

    @torch.no_grad()
    def _chosen(
        self, hidden: Tensor, weights: Tensor, logits: Tensor, groups: BagBatch, counts: list[int]
    ) -> tuple[Tensor, list[int]]:
        kind, count = self.config.distillation, self.config.instances
        scores = weights if kind == "mas" else self._probability(hidden, weights, logits, groups)
        picked = segment_top(scores, count, groups)
        if kind == "maxmin":
            low = segment_top(scores, count, groups, largest=False)
            picked = [torch.cat(pair) for pair in zip(picked, low, strict=True)]
        taken, start = [], 0
        for parts in counts:
            taken.append(sum(len(rows) for rows in picked[start : start + parts]))
            start += parts
        return torch.cat(picked), taken

    def _probability(self, hidden: Tensor, weights: Tensor, logits: Tensor, groups: BagBatch) -> Tensor:
        # The paper's derived instance probability: the classifier on what an instance adds to its pseudo-bag.
        weighted = promote(hidden) * weights.unsqueeze(1)
        activation = weighted @ promote(self.classifier.weight).T
        most_probable = logits.argmax(dim=1) if logits.shape[1] > 2 else logits.new_ones(len(logits)).long()
        return activation.softmax(dim=1).gather(1, most_probable[groups.bag_index].unsqueeze(1)).squeeze(1)

    def _loss(self, logits: Tensor, labels: Tensor, batch: BagBatch) -> Tensor:
        parts = torch.tensor(self._parts(batch), device=logits.device)
        losses = cross_entropy(logits, labels.repeat_interleave(parts), reduction="none")
        return (losses / parts.repeat_interleave(parts)).sum() / len(batch)
