"""Reductions over the bags of a packed batch."""

from __future__ import annotations

import torch
from torch import Tensor

from wsi_ncmi.mil.bags import BagBatch

__all__ = ["segment_max", "segment_mean", "segment_softmax", "segment_sum"]


def segment_softmax(scores: Tensor, batch: BagBatch) -> Tensor:
    """Softmax within each bag, stable for any size of score.

    Args:
        scores: One score an instance, (ΣN,).
        batch: The batch the scores belong to.

    Returns:
        Weights (ΣN,) that sum to 1 within each bag.
    """
    index = batch.bag_index
    # The maximum only guards the exponential: softmax does not depend on it, so it needs no gradient.
    top = torch.segment_reduce(scores.detach(), "max", offsets=batch.offsets, unsafe=True)
    exponential = (scores - top[index]).exp()
    total = exponential.new_zeros(len(batch)).index_add_(0, index, exponential)
    return exponential / total[index]


def segment_sum(values: Tensor, batch: BagBatch) -> Tensor:
    """Sum over each bag: (ΣN, E) → (B, E)."""
    return values.new_zeros(len(batch), values.shape[1]).index_add_(0, batch.bag_index, values)


def segment_mean(values: Tensor, batch: BagBatch) -> Tensor:
    """Mean over each bag: (ΣN, E) → (B, E)."""
    return segment_sum(values, batch) / batch.lengths.to(values.dtype).unsqueeze(1)


def segment_max(values: Tensor, batch: BagBatch) -> Tensor:
    """Maximum over each bag, element by element: (ΣN, E) → (B, E)."""
    return torch.segment_reduce(values, "max", offsets=batch.offsets, axis=0, unsafe=True)
