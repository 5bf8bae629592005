"""The decision: from KL distances to calibrated probabilities, alone or with the class means' say."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

_MAX_STEPS = 100
_TOLERANCE = 1e-10
_SHRINKAGE = 0.3  # of the covariance of class means, towards a multiple of the identity
_SAY_OF_MEANS = 2.0  # weight of the class means' scores to the distances', each in units of its spread
_DIRECTIONS = 16  # of the training embeddings' covariance that are told apart
_REACH = 8.0  # times the median squared distance of validation or training, the larger one


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


class _Fitted(nn.Module):
    """Buffers that are None until a fit, and not in the state: models from before they existed load."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self._shapes = shapes
        for name in shapes:
            self.register_buffer(name, None)

    def forget(self) -> None:
        """Is as before a fit."""
        for name in self._shapes:
            setattr(self, name, None)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any, **options: Any
    ) -> None:
        fitted = any(prefix + name in state_dict for name in self._shapes)
        for name, shape in self._shapes.items():
            setattr(self, name, torch.zeros(shape) if fitted else None)
        super()._load_from_state_dict(state_dict, prefix, *arguments, **options)


class ClassMeanDecision(_Fitted):
    """Log-probabilities corrected by how far an embedding lies from the class means.

    Seen as the mean of a Gaussian output, an embedding z lies KL(N(z, Σ) ‖ N(μ_j, Σ)) =
    ½ (z − μ_j)ᵀ Σ⁻¹ (z − μ_j) from the centroid μ_j of class j: the paper's rule, the nearest centroid in
    KL, is Fisher's linear discriminant then. Means and the common covariance Σ have a closed form, and they
    hold better on slides of hospitals that the training hasn't seen (``docs/development/ncmi-long-tail.md``).
    The answer is softmax(a · (ℓ_j/s + 2 g_j/t)): ℓ_j the network's own log-probabilities, g_j the
    discriminant's scores, s and t the spreads of both, and a the scale that fits validation best.

    Not fitted, it changes nothing.

    Args:
        num_classes: Number of classes C.
        width: Width E of the embedding.

    Attributes:
        own_weight: a/s, () buffer, or None.
        weight: Discriminant (C, E), scaled by 2a/t, or None.
        bias: Its constants (C,), or None.
    """

    own_weight: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__(own_weight=(), weight=(num_classes, width), bias=(num_classes,))

    def forward(self, log_p: Tensor, z: Tensor) -> Tensor:
        """Corrected log-probabilities (B, C) of log-probabilities (B, C) and embeddings (B, E)."""
        if self.weight is None or self.bias is None or self.own_weight is None:
            return log_p
        scores = self.own_weight * log_p + z.to(self.weight.dtype) @ self.weight.T + self.bias
        return scores.log_softmax(dim=-1).to(log_p.dtype)

    @torch.no_grad()
    def fit(
        self, log_p: Tensor, z: Tensor, y: Tensor, train_z: Tensor, train_y: Tensor, balance: float
    ) -> None:
        """Fits spreads and scale on validation samples with the training's means, then the means on both.

        Args:
            log_p: The network's own log-probabilities of the validation samples (N, C).
            z: Their embeddings (N, E), computed in eval mode.
            y: Their class indices (N,).
            train_z: Embeddings of the training samples (M, E), computed in eval mode.
            train_y: Their class indices (M,).
            balance: Samples weigh N_c^−balance in the scale's fit, and the prior of the means has the
                exponent 1 − balance: at 1 every class weighs alike.
        """
        classes = log_p.shape[1]
        z, train_z, log_p = z.double(), train_z.double(), log_p.double()
        weight, bias = _discriminant(train_z, train_y, classes, 1 - balance)
        scores = z @ weight.T + bias
        own, means = 1 / _spread(log_p), _SAY_OF_MEANS / _spread(scores)
        weights = torch.bincount(y, minlength=classes).double().clamp(min=1).pow(-balance)[y]
        scale = _best_scale(own * log_p + means * scores, y, weights / weights.sum())
        weight, bias = _discriminant(torch.cat([train_z, z]), torch.cat([train_y, y]), classes, 1 - balance)
        dtype = torch.get_default_dtype()
        self.own_weight = (scale * own).to(dtype)
        self.weight, self.bias = ((scale * means * part).to(dtype) for part in (weight, bias))


class FarDecision(_Fitted):
    """Another decision for embeddings far from all that the training and its validation have seen.

    Class weights and class means shift the scores by what the training's hospitals teach. Where an embedding
    lies far from theirs, the scores of all classes lie close together, and the shift alone would decide: such
    a sample gets the calibrated decision without either (``docs/development/ncmi-long-tail.md``). Far is a
    squared distance from the training's mean of more than 8 times the median of the validation samples (or of
    the training's, where that is larger), in the metric of the training embeddings' covariance (its 16 first
    directions, shrunk by .3 towards a multiple of the identity).

    Not fitted, it changes nothing.

    Args:
        num_classes: Number of classes C.
        width: Width E of the embedding.

    Attributes:
        scale: a of the softmax of −a·d_j + b_j for far samples, () buffer, or None.
        bias: Its b (C,), or None.
        centre: Mean of the training embeddings (E,), or None.
        directions: First directions of their covariance (K, E), or None.
        gain: What a squared step along each counts for more than one across them (K,), or None.
        tail: What a squared step counts (), in units of the distance that is far, or None.
    """

    scale: Tensor | None
    bias: Tensor | None
    centre: Tensor | None
    directions: Tensor | None
    gain: Tensor | None
    tail: Tensor | None

    def __init__(self, num_classes: int, width: int) -> None:
        directions = min(_DIRECTIONS, width)
        super().__init__(
            scale=(), bias=(num_classes,), centre=(width,), directions=(directions, width),
            gain=(directions,), tail=(),
        )  # fmt: skip

    def forward(self, log_p: Tensor, distances: Tensor, z: Tensor) -> Tensor:
        """Log-probabilities (B, C), those of far samples decided anew.

        Args:
            log_p: Of the usual decision (B, C).
            distances: From the centroids (B, C).
            z: Embeddings (B, E).
        """
        if self.scale is None or self.bias is None:
            return log_p
        own = (self.bias - self.scale * distances).log_softmax(dim=-1).to(log_p.dtype)
        return torch.where((self.remoteness(z) > 1).unsqueeze(-1), own, log_p)

    def remoteness(self, z: Tensor) -> Tensor:
        """Squared distances (B,) of embeddings (B, E) from the training's mean; above 1 is far.

        Raises:
            RuntimeError: Nothing was fitted.
        """
        if self.centre is None or self.directions is None or self.gain is None or self.tail is None:
            raise RuntimeError("The far decision isn't fitted.")
        z = z.to(self.centre.dtype) - self.centre
        return (z @ self.directions.T).square() @ self.gain + self.tail * z.square().sum(dim=-1)

    @torch.no_grad()
    def fit(self, plain: CalibratedDecision, z: Tensor, train_z: Tensor) -> None:
        """Takes the decision for far samples, and what is far from the training and validation samples.

        Args:
            plain: The decision of far samples, fitted.
            z: Embeddings of the validation samples (N, E), computed in eval mode.
            train_z: Embeddings of the training samples (M, E), computed in eval mode.
        """
        z, train_z = z.double(), train_z.double()
        centre = train_z.mean(dim=0)
        residual = train_z - centre
        values, vectors = torch.linalg.eigh(residual.T @ residual / len(residual))
        size = values.mean()
        if size <= 0:  # embeddings that don't vary say of none that it's far
            self.forget()
            return
        kept = self._shapes["directions"][0]
        values, directions = values.flip(0)[:kept].clamp(min=0), vectors.flip(1)[:, :kept].T
        tail = 1 / (_SHRINKAGE * size)
        gain = 1 / ((1 - _SHRINKAGE) * values + _SHRINKAGE * size) - tail
        # A few validation samples may lie at the centre by chance; training samples lie closer than others.
        reach = _REACH * max(
            ((part @ directions.T).square() @ gain + tail * part.square().sum(dim=1)).median()
            for part in (residual, z - centre)
        )
        dtype = torch.get_default_dtype()
        self.scale, self.bias = plain.scale.clone(), plain.bias.clone()
        self.centre, self.directions = centre.to(dtype), directions.to(dtype)
        self.gain, self.tail = (gain / reach).to(dtype), (tail / reach).to(dtype)


def _spread(scores: Tensor) -> Tensor:
    spread = (scores - scores.mean(dim=1, keepdim=True)).square().mean().sqrt()
    return torch.where(spread > 0, spread, 1.0)


def _discriminant(z: Tensor, y: Tensor, classes: int, prior: float) -> tuple[Tensor, Tensor]:
    """Weights (C, E) and constants (C,) of −½ (z − μ_j)ᵀ Σ⁻¹ (z − μ_j) + prior · log P(j), class for class.

    A class without a sample has a constant score, the lowest that any sample has for any other class.
    """
    counts = torch.bincount(y, minlength=classes).double()
    centre = z.mean(dim=0)
    z = z - centre  # large means would cost digits of the covariance
    sums = torch.zeros(classes, z.shape[1], dtype=z.dtype, device=z.device).index_add_(0, y, z)
    means = sums / counts.clamp(min=1).unsqueeze(1)
    residual = z - means[y]
    covariance = residual.T @ residual / len(z)
    size = covariance.diagonal().mean()
    covariance = (1 - _SHRINKAGE) * covariance
    # Embeddings that don't vary at all say nothing, and divide by nothing.
    covariance.diagonal().add_(torch.where(size > 0, _SHRINKAGE * size, 1.0))
    weight = torch.linalg.solve(covariance, means.T).T
    log_prior = (counts.clamp(min=1) / counts.sum()).log()
    bias = prior * log_prior - 0.5 * (weight * means).sum(dim=1)
    absent = counts == 0
    weight[absent], bias[absent] = 0.0, (z @ weight.T + bias)[:, ~absent].min()
    return weight, bias - weight @ centre


def _best_scale(scores: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The scale in [e⁻⁵, e⁵] of scores (N, C) with the smallest weighted negative log-likelihood.

    The likelihood is convex in the scale, and one search over its logarithm ends at the minimum.
    """
    low, high = -5.0, 5.0
    for _ in range(60):
        third = (high - low) / 3
        losses = [
            float(weights @ cross_entropy(math.exp(at) * scores, y, reduction="none"))
            for at in (low + third, high - third)
        ]
        low, high = (low, high - third) if losses[0] <= losses[1] else (low + third, high)
    return scores.new_tensor(math.exp((low + high) / 2))
