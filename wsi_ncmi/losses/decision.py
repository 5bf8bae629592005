"""The decision: from KL distances to calibrated probabilities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["CalibratedDecision"]


class CalibratedDecision(nn.Module):
    """Softmax of −a·d_j + b_j over classes, d_j the distance of a sample from centroid j.

    The nearest centroid (a > 0, b = 0) ignores how common the classes are; a fitted scale a and biases b_j,
    as in vector scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017), give
    probabilities.

    Args:
        num_classes: Number of classes C.
        scale: The scale a before any fit.
        ridge: Penalty on b and on a (in units of the distances' spread), as a number of pseudo-samples.

    Attributes:
        scale: a, () buffer.
        bias: b, (C,) buffer.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, num_classes: int, scale: float, ridge: float = 1.0) -> None:
        super().__init__()
        self.ridge = ridge
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("bias", torch.zeros(num_classes))

    def forward(self, distances: Tensor) -> Tensor:
        """Log-probabilities (B, C) of distances (B, C)."""
        scores = self.bias.to(distances.dtype) - self.scale.to(distances.dtype) * distances
        return scores.log_softmax(dim=-1)

    @torch.enable_grad()
    def fit(self, distances: Tensor, y: Tensor, balance: float = 0.0) -> None:
        """Minimises the mean negative log-likelihood plus the ridge, a convex problem, by L-BFGS in float64.

        Args:
            distances: Distances (N, C) of training or validation samples, never of test samples.
            y: Class indices (N,).
            balance: Samples weigh N_c^−balance, on average 1: at 1 every class present weighs alike.
        """
        distances = distances.detach().double()
        counts = torch.bincount(y, minlength=distances.shape[1]).double()
        weights = counts.clamp(min=1).pow(-balance)[y]
        weights = weights / weights.mean()
        # The unknown is the scale in units of the distances' own spread, so that it is of the size 1 for all.
        spread = (distances - distances.mean(dim=1, keepdim=True)).square().mean().sqrt()
        unit = 1 / torch.where(spread > 0, spread, 1.0)
        relative = distances.new_ones((), requires_grad=True)
        bias = distances.new_zeros(distances.shape[1], requires_grad=True)
        weight = self.ridge / max(len(y), 1)

        def objective() -> Tensor:
            scores = bias - relative * unit * distances
            penalty = bias.square().sum() + (relative - 1).square()
            fit = (weights * cross_entropy(scores, y, reduction="none")).mean()
            return fit + 0.5 * weight * penalty

        optimizer = torch.optim.LBFGS(
            [relative, bias], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
        )

        def closure() -> float:
            optimizer.zero_grad()
            loss = objective()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item()

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            # Below zero the farthest class would be the nearest one: such data say nothing of it.
            self.scale.copy_(relative.clamp(min=1e-3) * unit)
            self.bias.copy_(bias)
