"""Features and scores of a part, outside training."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.losses.ncmi import NCMILoss
from wsi_ncmi.losses.running_statistics import gather_over_ranks
from wsi_ncmi.metrics.information import information_metrics
from wsi_ncmi.training.scoring import f1_and_recall, probabilities_of
from wsi_ncmi.vision.batches import Batches
from wsi_ncmi.vision.ranks import Ranks

__all__ = ["SCORES", "features_of", "scores_of"]

SCORES = ("loss", "top1", "top5", "macro_f1", "cmi", "gamma", "ncmi", "top1_nearest")
"""Names of the scores; ``top1_nearest`` is NaN for a loss that has no centroids."""

_EVALUATION_BATCH = 512


@torch.no_grad()
def features_of(
    network: nn.Module, batches: Batches, rows: NDArray[np.int64], ranks: Ranks, amp: torch.autocast
) -> Tensor:
    """Features (n, E), float32, of rows in evaluation mode.

    Every process of ``ranks`` computes its part and gets all; with a world of one, each its own rows alone.
    """
    training = network.training
    network.eval()
    shared = len(rows) >= ranks.world > 1
    mine = rows[ranks.part(len(rows))] if shared else rows
    try:
        parts = []
        for x in batches.plain(mine, _EVALUATION_BATCH):
            with amp:
                # A copy: a captured CUDA graph writes its next output into the same place.
                parts.append(network(x).float().clone())
    finally:
        network.train(training)
    z = torch.cat(parts)
    return gather_over_ranks(z) if shared else z


@torch.no_grad()
def scores_of(criterion: Criterion, z: Tensor, y: Tensor) -> dict[str, float]:
    """Scores by the names of ``SCORES``.

    Top-1 and top-5 are shares of the images whose class is the most probable one, or among the five most
    probable; macro-F1 is over all classes; CMI, Γ (pairwise) and NCMI are those of the class probabilities
    with the class means of the same probabilities, the same for all losses (``metrics.information_metrics``).
    ``top1_nearest`` is NCMI's top-1 by the nearest centroid, the paper's rule, whatever the fitted decision
    says.

    Args:
        criterion: Loss and decision; its mode is as before afterwards.
        z: Features (n, E).
        y: Class indices (n,).
    """
    training = criterion.training
    criterion.eval()
    try:
        # In parts: some losses compare all images of a batch with each other.
        sums = [
            float(criterion(part, target)) * len(target)
            for part, target in zip(*(torch.split(x, _EVALUATION_BATCH) for x in (z, y)), strict=True)
        ]
        nearest = math.nan
        if isinstance(criterion, NCMILoss):
            nearest = float((criterion.distances(z).argmin(dim=1) == y).double().mean())
    finally:
        criterion.train(training)
    probabilities = probabilities_of(criterion, z)
    truth = y.cpu().numpy()
    macro_f1, _ = f1_and_recall(truth, probabilities.argmax(axis=1), criterion.num_classes)
    return {
        "loss": sum(sums) / len(y),
        "top1": top_share(probabilities, truth, 1),
        "top5": top_share(probabilities, truth, 5),
        "macro_f1": macro_f1,
        **information_metrics(probabilities, truth),
        "top1_nearest": nearest,
    }


def top_share(probabilities: NDArray[np.float64], y: NDArray[np.int64], k: int) -> float:
    """Share of the rows whose class is among the k most probable; a tie goes to the class that comes first.

    Args:
        probabilities: (n, C).
        y: Class indices (n,).
        k: How many.
    """
    own = probabilities[np.arange(len(y)), y][:, None]
    columns = np.arange(probabilities.shape[1])[None, :]
    before = (probabilities > own) | ((probabilities == own) & (columns < y[:, None]))
    return float((before.sum(axis=1) < k).mean())
