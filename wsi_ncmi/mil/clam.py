"""CLAM: attention pooling whose most and least attended instances are clustered by pseudo-labels.

Source: Lu, Williamson, Chen, Chen, Barbieri, Mahmood, "Data-efficient and weakly supervised computational
pathology on whole-slide images", Nature Biomedical Engineering 5 (2021), arXiv 2004.09666, Methods; sizes and
defaults as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_ncmi.mil.attention import AttentionScore
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.clam_instances import draw_pseudo_labels, pseudo_label_loss
from wsi_ncmi.mil.config import ClamConfig
from wsi_ncmi.mil.dropout import FastDropout
from wsi_ncmi.mil.segments import promote, segment_branch_sums, segment_softmax

__all__ = ["CLAMMB", "CLAMSB", "ClassWiseLinear"]


class ClassWiseLinear(nn.Linear):
    """A head whose class c sees the c-th part of the embedding alone: s_c = w_cᵀ M_c + b_c.

    Args:
        num_classes: C.
        width: Width of a class's part.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__(num_classes * width, num_classes)
        self.own: Tensor
        self.register_buffer("own", torch.eye(num_classes).repeat_interleave(width, dim=1), persistent=False)
        with torch.no_grad():  # the range of C linear layers of the part's width
            self.weight.mul_(num_classes**0.5)
            self.bias.mul_(num_classes**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C) of embeddings (B, C · width)."""
        return nn.functional.linear(x, self.weight * self.own.to(self.weight.dtype), self.bias)


class CLAMSB(Aggregator):
    """CLAM with a single attention branch: embedding Σ a_k h_k and the instance clustering loss.

    Args:
        in_features: Width D of the instance features.
        num_classes: C; one instance classifier each.
        hidden: Width of the projection = width of the embedding.
        attention: Width of the attention branch.
        dropout: Dropout after the projection and inside the attention branch.
        input_dropout: Dropout on the instance features.
        options: CLAM's own settings.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden: int = 512,
        attention: int = 256,
        dropout: float = 0.25,
        input_dropout: float = 0.0,
        options: ClamConfig | None = None,
    ) -> None:
        self.num_classes = num_classes
        branches = self._branches(num_classes)
        super().__init__(in_features, branches * hidden)
        self.options = options or ClamConfig()
        self.input_dropout = FastDropout(input_dropout)
        self.projection = nn.Linear(in_features, hidden)
        self.dropout = FastDropout(dropout)
        self.score = AttentionScore(
            hidden, attention, branches=branches, gated=self.options.gated, dropout=dropout
        )
        self.instances = nn.Linear(hidden, 2 * num_classes)

    @staticmethod
    def _branches(num_classes: int) -> int:
        return 1

    def forward(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`); the auxiliary loss is ``instance``."""
        hidden = self.dropout(self.projection(self.input_dropout(self.prepared(batch))).relu())
        attention = segment_softmax(self.score(hidden), batch)
        embedding = segment_branch_sums(hidden, attention, batch).flatten(1)
        auxiliary = {}
        if self.training and self.options.instance_weight > 0:
            known = self.needed_labels(labels, batch, "an instance loss")
            auxiliary["instance"] = self.options.instance_weight * self._instance_loss(
                hidden, attention, known, batch
            )
        several = attention.shape[1] > 1
        return AggregatorOutput(embedding, attention.mean(1), auxiliary, attention if several else None)

    def _instance_loss(self, hidden: Tensor, attention: Tensor, labels: Tensor, batch: BagBatch) -> Tensor:
        drawn = draw_pseudo_labels(
            attention.detach(), labels, batch, num_classes=self.num_classes,
            count=self.options.k_sample, subtyping=self.options.subtyping,
        )  # fmt: skip
        logits = promote(self.instances(hidden[drawn.rows])).view(-1, self.num_classes, 2)
        return pseudo_label_loss(logits, drawn, self.options.instance_loss)


class CLAMMB(CLAMSB):
    """CLAM with an attention branch a class: the embedding is the C class embeddings side by side."""

    @staticmethod
    def _branches(num_classes: int) -> int:
        return num_classes

    def make_head(self, num_classes: int) -> nn.Linear:
        """A head that gives each class its own part of the embedding, as published."""
        return ClassWiseLinear(num_classes, self.embedding_width // num_classes)
