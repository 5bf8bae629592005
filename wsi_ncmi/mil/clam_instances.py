"""CLAM's pseudo-labelled instances: which they are, and their loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wsi_ncmi.mil.bags import BagBatch
from wsi_ncmi.mil.smooth_svm import smooth_top1_svm

__all__ = ["PseudoLabels", "draw_pseudo_labels", "pseudo_label_loss"]


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
