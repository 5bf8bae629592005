"""Embeddings, probabilities and scores of whole bags, outside training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_ncmi.losses import functional
from wsi_ncmi.losses.base import Criterion
from wsi_ncmi.mil.base import Aggregator

if TYPE_CHECKING:
    from wsi_ncmi.training.bags import BagCache


@torch.no_grad()
def embed(aggregator: Aggregator, cache: BagCache, slide_ids: Sequence[str], device: torch.device) -> Tensor:
    """Embeds whole bags with dropout off.

    Args:
        aggregator: The model; its mode is as before afterwards.
        cache: The bags.
        slide_ids: At least one slide.
        device: Where the model is.

    Returns:
        Embeddings (n, E) in the order of the ids, on ``device``.
    """
    training = aggregator.training
    aggregator.eval()
    try:
        parts = [aggregator(batch.to(device)).embedding for batch in cache.whole_batches(slide_ids)]
    finally:
        aggregator.train(training)
    return torch.cat(parts)


@torch.no_grad()
def probabilities_of(criterion: Criterion, z: Tensor) -> NDArray[np.float64]:
    """Class probabilities (n, C), float64, each row summing to 1 within float64's rounding."""
    training = criterion.training
    criterion.eval()
    try:
        probabilities: NDArray[np.float64] = criterion.predict_proba(z).double().cpu().numpy()
    finally:
        criterion.train(training)
    total: NDArray[np.float64] = probabilities.sum(axis=1, keepdims=True)
    return np.divide(probabilities, total)


def f1_and_recall(
    y: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int
) -> tuple[float, float]:
    """Macro-F1 over all classes (0 for a class without sample and prediction) and balanced accuracy.

    The same numbers as scikit-learn's with ``labels=range(C), zero_division=0`` and as its balanced accuracy,
    without the milliseconds that those cost at every epoch.
    """
    table = np.bincount(y * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, -1)
    hits, true, named = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    f1 = 2.0 * hits / np.maximum(true + named, 1)
    present = true > 0
    return float(f1.mean()), float((hits[present] / true[present]).mean())


@torch.no_grad()
def validation_scores(criterion: Criterion, z: Tensor, y: Tensor) -> dict[str, float]:
    """Scores of a part: ``val_loss``, ``val_macro_f1``, ``val_balanced_accuracy``, ``val_cmi/gamma/ncmi``.

    Args:
        criterion: Loss and decision; its mode is as before afterwards.
        z: Embeddings (n, E).
        y: Class indices (n,).

    Returns:
        Scores by the names of the columns of ``curves.csv``; a score that the part doesn't define (Γ of one
        class, CMI of a slide a class) is NaN.
    """
    training = criterion.training
    criterion.eval()
    try:
        loss = float(criterion(z, y))
    finally:
        criterion.train(training)
    probabilities = probabilities_of(criterion, z)
    truth = y.cpu().numpy()
    macro_f1, balanced = f1_and_recall(truth, probabilities.argmax(axis=1), criterion.num_classes)
    return {
        "val_loss": loss,
        "val_macro_f1": macro_f1,
        "val_balanced_accuracy": balanced,
        **_information(probabilities, truth, criterion.num_classes),
    }


def _information(
    probabilities: NDArray[np.float64], y: NDArray[np.int64], num_classes: int
) -> dict[str, float]:
    """Concentration, pairwise separation and their ratio on class probabilities, the same for all losses."""
    log_p, target = functional.safe_log(torch.from_numpy(probabilities)), torch.from_numpy(y)
    log_s, counts = functional.class_means(log_p, target, num_classes)
    # A class mean of one slide is that slide: a part with a slide a class has no spread to measure.
    cmi = float(functional.cmi(log_p, target, log_s)) if int(counts.max()) > 1 else math.nan
    if int((counts > 0).sum()) < 2:
        return {"val_cmi": cmi, "val_gamma": math.nan, "val_ncmi": math.nan}
    gamma = float(functional.separation(log_p, target, log_s))
    return {"val_cmi": cmi, "val_gamma": gamma, "val_ncmi": cmi / gamma}
