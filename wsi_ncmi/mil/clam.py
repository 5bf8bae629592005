"""CLAM: attention pooling whose most and least attended instances are clustered by pseudo-labels.

Source: Lu, Williamson, Chen, Chen, Barbieri, Mahmood, "Data-efficient and weakly supervised computational
pathology on whole-slide images", Nature Biomedical Engineering 5 (2021), arXiv 2004.09666, Methods; sizes and
defaults as in the authors' code.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wsi_ncmi.mil.abmil import AttentionScore
from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.config import ClamConfig
from wsi_ncmi.mil.segments import promote, segment_branch_sums, segment_softmax

_HARD_FROM = math.log(1e3)


def smooth_top1_svm(scores: Tensor, targets: Tensor, *, margin: float = 1.0, tau: float = 1.0) -> Tensor:
    """Multi-class hinge with the maximum smoothed: τ log Σ_j exp((s_j + α [j ≠ y] − s_y) / τ).

    Where the two best scores are further apart than τ log 1000 the maximum itself is taken, as the authors'
    code does.

    Source: Berrada, Zisserman, Kumar, "Smooth Loss Functions for Deep Top-k Classification", ICLR 2018,
    arXiv 1802.07595, for k = 1.

    Args:
        scores: (M, C), C at least 2.
        targets: (M,), int64.
        margin: α.
        tau: Temperature τ.

    Returns:
        Loss of each row, (M,).
    """
    true = scores.gather(1, targets.unsqueeze(1))
    others = torch.ones_like(scores).scatter_(1, targets.unsqueeze(1), 0.0)
    violation = scores + margin * others - true
    best = scores.detach().topk(2, dim=1).values
    apart = best[:, 0] - best[:, 1] >= tau * _HARD_FROM
    smooth = tau * (violation / tau).logsumexp(dim=1)
    return torch.where(apart, violation.amax(dim=1), smooth)


@dataclass(frozen=True)
class PseudoLabels:
    """M instances with a pseudo-label each.

    Attributes:
        rows: Positions in the packed matrix, int64 (M,).
        classes: The class whose instance classifier is asked, int64 (M,).
        targets: 1 = evidence of the class, 0 = not, int64 (M,).
        weights: Share in the batch's loss, (M,).
    """

    rows: Tensor
    classes: Tensor
    targets: Tensor
    weights: Tensor


@torch.no_grad()
def draw_pseudo_labels(
    attention: Tensor, labels: Tensor, batch: BagBatch, *, num_classes: int, count: int, subtyping: bool
) -> PseudoLabels:
    """Takes the instances of highest and lowest attention, as the paper's instance-level clustering.

    In the bag's own class the ``count`` highest are positives and the ``count`` lowest negatives; with
    ``subtyping`` the highest of every other class are negatives of it. A bag's loss is the mean over a
    class's instances, summed over the classes (their mean with ``subtyping``); then the mean over bags.

    Args:
        attention: (ΣN, 1) of a single branch or (ΣN, C).
        labels: (B,).
        batch: The bags.
        num_classes: C.
        count: Instances at each end; a smaller bag gives all it has.
        subtyping: Whether the classes exclude each other.
    """
    rows: list[Tensor] = []
    cells: list[tuple[int, int, float, int]] = []
    share = 1.0 / (len(batch) * (num_classes if subtyping else 1))
    start = 0
    for label, size, bag in zip(
        labels.tolist(), batch.sizes, torch.split(attention, batch.sizes), strict=True
    ):
        taken = min(count, size)
        for c in range(num_classes):
            scores = bag[:, c if bag.shape[1] > 1 else 0]
            if c == label:
                rows += [
                    scores.topk(taken).indices + start,
                    scores.topk(taken, largest=False).indices + start,
                ]
                cells += [(c, 1, share / (2 * taken), taken), (c, 0, share / (2 * taken), taken)]
            elif subtyping:
                rows.append(scores.topk(taken).indices + start)
                cells.append((c, 0, share / taken, taken))
        start += size
    device = attention.device
    repeats = torch.tensor([cell[3] for cell in cells], device=device)
    return PseudoLabels(
        torch.cat(rows),
        torch.tensor([cell[0] for cell in cells], device=device).repeat_interleave(repeats),
        torch.tensor([cell[1] for cell in cells], device=device).repeat_interleave(repeats),
        torch.tensor([cell[2] for cell in cells], dtype=attention.dtype, device=device)
        .repeat_interleave(repeats),
    )  # fmt: skip


def pseudo_label_loss(logits: Tensor, drawn: PseudoLabels, kind: str) -> Tensor:
    """The weighted loss of pseudo-labelled instances.

    Args:
        logits: Answers of all instance classifiers for the drawn instances, (M, C, 2).
        drawn: Their pseudo-labels.
        kind: ``svm`` or ``ce``.
    """
    asked = logits[torch.arange(len(logits), device=logits.device), drawn.classes]
    if kind == "svm":
        losses = smooth_top1_svm(asked, drawn.targets)
    else:
        losses = cross_entropy(asked, drawn.targets, reduction="none")
    return (losses * drawn.weights).sum()


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
        config: CLAM's own settings.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden: int = 512,
        attention: int = 256,
        dropout: float = 0.25,
        input_dropout: float = 0.0,
        config: ClamConfig | None = None,
    ) -> None:
        self.num_classes = num_classes
        branches = self._branches(num_classes)
        super().__init__(in_features, branches * hidden)
        self.config = config or ClamConfig()
        self.input_dropout = FastDropout(input_dropout)
        self.projection = nn.Linear(in_features, hidden)
        self.dropout = FastDropout(dropout)
        self.score = AttentionScore(
            hidden, attention, branches=branches, gated=self.config.gated, dropout=dropout
        )
        self.instances = nn.Linear(hidden, 2 * num_classes)
        self.add_head(num_classes)

    @staticmethod
    def _branches(num_classes: int) -> int:
        return 1

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`); the auxiliary loss is ``instance``."""
        hidden = self.dropout(self.projection(self.input_dropout(self.prepared(batch))).relu())
        attention = segment_softmax(self.score(hidden), batch)
        embedding = segment_branch_sums(hidden, attention, batch).flatten(1)
        auxiliary = {}
        if self.training and self.config.instance_weight > 0:
            known = self.needed_labels(labels, batch, "an instance loss")
            auxiliary["instance"] = self.config.instance_weight * self._instance_loss(
                hidden, attention, known, batch
            )
        several = attention.shape[1] > 1
        return AggregatorOutput(embedding, attention.mean(1), auxiliary, attention if several else None)

    def _instance_loss(self, hidden: Tensor, attention: Tensor, labels: Tensor, batch: BagBatch) -> Tensor:
        drawn = draw_pseudo_labels(
            attention.detach(), labels, batch, num_classes=self.num_classes,
            count=self.config.k_sample, subtyping=self.config.subtyping,
        )  # fmt: skip
        logits = promote(self.instances(hidden[drawn.rows])).view(-1, self.num_classes, 2)
        return pseudo_label_loss(logits, drawn, self.config.instance_loss)


class CLAMMB(CLAMSB):
    """CLAM with an attention branch a class: the embedding is the C class embeddings side by side."""

    @staticmethod
    def _branches(num_classes: int) -> int:
        return num_classes

    def make_head(self, num_classes: int) -> nn.Linear:
        """A head that gives each class its own part of the embedding, as published."""
        return ClassWiseLinear(num_classes, self.embedding_width // num_classes)
