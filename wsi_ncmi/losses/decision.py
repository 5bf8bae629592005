"""The decision: from KL distances to calibrated probabilities."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

_MAX_STEPS = 100
_TOLERANCE = 1e-10


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

    @torch.no_grad()
    def fit(self, distances: Tensor, y: Tensor, balance: float = 0.0) -> None:
        """Minimises the mean negative log-likelihood plus the ridge by Newton's method in float64.

        The problem is strictly convex in C + 1 unknowns, so a dozen steps end at its only minimum.

        Args:
            distances: Distances (N, C) of training or validation samples, never of test samples.
            y: Class indices (N,).
            balance: Samples weigh N_c^−balance, on average 1: at 1 every class present weighs alike.
        """
        if len(y) == 0:
            return
        distances = distances.detach().double()
        classes = distances.shape[1]
        weights = torch.bincount(y, minlength=classes).double().clamp(min=1).pow(-balance)[y]
        weights = weights / weights.sum()
        # The unknown is the scale in units of the distances' own spread, so that it is of the size 1 for all.
        spread = (distances - distances.mean(dim=1, keepdim=True)).square().mean().sqrt()
        unit = 1 / torch.where(spread > 0, spread, 1.0)
        problem = _Problem(unit * distances, y, weights, self.ridge / len(y))
        x = distances.new_zeros(1 + classes)
        x[0] = 1.0
        value = problem.value(x)
        for _ in range(_MAX_STEPS):
            gradient, hessian = problem.derivatives(x)
            if gradient.abs().max() < _TOLERANCE:
                break
            step = torch.linalg.solve(hessian, gradient)
            length, slope = 1.0, float(gradient @ step)
            while (new := problem.value(x - length * step)) > value - 1e-4 * length * slope and length > 1e-6:
                length /= 2
            x, value = x - length * step, new
        # Below zero the farthest class would be the nearest one: such data say nothing of it.
        self.scale.copy_(x[0].clamp(min=1e-3) * unit)
        self.bias.copy_(x[1:])


class _Problem:
    """Weighted cross-entropy of b − a·d plus ridge/2·(|b|² + (a − 1)²) in the unknowns x = (a, b)."""

    def __init__(self, distances: Tensor, y: Tensor, weights: Tensor, ridge: float) -> None:
        self._d, self._y, self._w, self._ridge = distances, y, weights, ridge
        self._start = torch.zeros(distances.shape[1] + 1, dtype=torch.float64, device=distances.device)
        self._start[0] = 1.0
        onehot = torch.zeros_like(distances).scatter_(1, y.unsqueeze(1), 1.0)
        self._weighted_onehot = weights.unsqueeze(1) * onehot

    def value(self, x: Tensor) -> float:
        losses = cross_entropy(x[1:] - x[0] * self._d, self._y, reduction="none")
        return float(self._w @ losses + 0.5 * self._ridge * (x - self._start).square().sum())

    def derivatives(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p = (x[1:] - x[0] * self._d).softmax(dim=1)
        weighted = self._w.unsqueeze(1) * p
        residual = weighted - self._weighted_onehot
        gradient = torch.cat([-(residual * self._d).sum().view(1), residual.sum(dim=0)])
        gradient = gradient + self._ridge * (x - self._start)
        mean = (p * self._d).sum(dim=1, keepdim=True)
        cross = -(weighted * (self._d - mean)).sum(dim=0)
        hessian = torch.empty(len(x), len(x), dtype=x.dtype, device=x.device)
        hessian[0, 0] = (weighted * (self._d - mean).square()).sum()
        hessian[0, 1:] = hessian[1:, 0] = cross
        hessian[1:, 1:] = weighted.sum(dim=0).diag() - p.T @ weighted
        hessian.diagonal().add_(self._ridge)
        return gradient, hessian
