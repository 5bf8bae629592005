"""Conditional mutual information, separation and their ratio as pure functions on log-probabilities.

Notation (arXiv 2601.02543 and 2309.09123): p_x is the output distribution of a sample over m symbols, s_y the
centroid of class y.

- Concentration CMI = Σ_y P(y) E[KL(p_x ‖ s_y) | y]; the empirical P(y) of the batch makes it a plain mean.
- Separation Γ, centroid form (2601.02543): for a sample of class y the mean over j ≠ y of KL(s_j ‖ p_x).
- Separation Γ, pairwise form (2309.09123): E[1{Y ≠ V} H(p_X, p_U)] over independent pairs.
- NCMI = CMI / Γ.

Everything is computed in float32 at least (float64 is kept), from logarithms, by matrix products: B samples
and C classes over m symbols cost O(B·C·m) time and O(B·C + B·m) memory.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from wsi_ncmi.losses.ncmi_form import Direction, Separation


def _promote(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def log_sigmax(u: Tensor) -> Tensor:
    """Logarithm of the "sigmax" distribution p_i = σ(u_i) / Σ_j σ(u_j).

    Args:
        u: Scores (…, m), any floating dtype and size.

    Returns:
        Log-probabilities (…, m), float32 at least, finite for finite ``u``.
    """
    log_sigma = logsigmoid(_promote(u))
    return log_sigma - log_sigma.logsumexp(dim=-1, keepdim=True)


def safe_log(p: Tensor) -> Tensor:
    """Logarithm of probabilities in which a zero becomes a huge negative number instead of −∞.

    With it 0 · log 0 = 0, as information theory has it, and a divergence that is infinite comes out larger
    than 10¹⁰ instead of as NaN. The number is the root of the largest float, so that sums stay finite.

    Args:
        p: Probabilities of any shape.

    Returns:
        Logarithms of the same shape, float32 at least.
    """
    logs = _promote(p).log()
    return logs.clamp(min=-math.sqrt(torch.finfo(logs.dtype).max))


def class_means(log_p: Tensor, y: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Closed-form centroids s_y = E[p | y]: for given outputs they minimise the CMI.

    Args:
        log_p: Log-probabilities (B, m).
        y: Class indices (B,).
        num_classes: Number of classes C.

    Returns:
        Log-centroids (C, m), uniform for a class that is missing, and samples of each class (C,).
    """
    p = _promote(log_p).exp()
    counts = torch.bincount(y, minlength=num_classes).to(p.dtype)
    sums = p.new_zeros(num_classes, p.shape[1]).index_add_(0, y, p)
    missing = (counts == 0).unsqueeze(1)
    means = torch.where(missing, 1.0 / p.shape[1], sums / counts.clamp(min=1).unsqueeze(1))
    return safe_log(means), counts


def kl_to_centroids(log_p: Tensor, log_s: Tensor, direction: Direction = "sample_to_code") -> Tensor:
    """Divergence of every sample from every centroid.

    Both directions are a difference of an entropy and a matrix product, so their absolute rounding error is
    about the machine epsilon times the largest logarithm; a zero may come out as −1e-7 in float32.

    Args:
        log_p: Log-probabilities of the samples (B, m), finite (see :func:`safe_log`).
        log_s: Log-probabilities of the centroids (C, m), finite.
        direction: ``sample_to_code`` for KL(p ‖ s_j), ``code_to_sample`` for KL(s_j ‖ p).

    Returns:
        Divergences (B, C) in nats, float32 at least.
    """
    log_p, log_s = _promote(log_p), _promote(log_s)
    if direction == "sample_to_code":
        p = log_p.exp()
        return (p * log_p).sum(dim=1, keepdim=True) - p @ log_s.T
    s = log_s.exp()
    return (s * log_s).sum(dim=1) - log_p @ s.T


def true_class(distances: Tensor, y: Tensor) -> Tensor:
    """The column of each sample's class: (B, C) → (B,)."""
    return distances.gather(1, y.unsqueeze(1)).squeeze(1)


def others_mean(distances: Tensor, y: Tensor) -> Tensor:
    """Mean over the columns of the other classes: (B, C) → (B,)."""
    # Masking before the sum, not total − own: the difference would lose the digits of a small remainder.
    others = distances.scatter(1, y.unsqueeze(1), 0.0)
    return others.sum(dim=1) / (distances.shape[1] - 1)


def generalised_log(log_ratio: Tensor, power: float) -> Tensor:
    """The generalised (Tsallis) logarithm (1 − (1 + r)^−q)/q of 1 + r, from ℓ = log(1 + r).

    It rises with r for every q, so it ranks outputs as the ratio r does; q says how much a bad sample counts:
    its slope in r is (1 + r)^−(1+q). q = −1 gives r itself (all samples alike), q = 0 gives log(1 + r), q = 1
    the share r/(1 + r), which never exceeds 1.

    Args:
        log_ratio: ℓ = log(1 + r), any shape.
        power: q in [−1, 1].
    """
    if power == 0:
        return log_ratio
    return torch.expm1(-power * log_ratio) / -power


def separation_floor(separation: Tensor) -> Tensor:
    """Keeps a separation that has to divide above the rounding error of the divergences.

    With two classes the centroid form vanishes where a sample sits exactly on the other class's centroid;
    below the machine epsilon its value is noise of either sign.
    """
    return separation.clamp(min=torch.finfo(separation.dtype).eps)


def cmi(log_p: Tensor, y: Tensor, log_s: Tensor) -> Tensor:
    """Concentration: the mean of KL(p_x ‖ s_y) over the samples, in nats.

    Args:
        log_p: Log-probabilities (B, m).
        y: Class indices (B,).
        log_s: Log-centroids (C, m); those of :func:`class_means` give I(X; Ŷ | Y).

    Returns:
        Scalar.
    """
    log_p, log_s = _promote(log_p), _promote(log_s)
    return (log_p.exp() * (log_p - log_s[y])).sum(dim=1).mean()


def pairwise_separation(log_p: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Each sample's share of the pairwise Γ: mean over all samples u of 1{y ≠ y_u} H(p_x, p_u).

    The cross-entropy is linear in log p_u, so sums over classes stand in for the pairs: O(B·m).

    Args:
        log_p: Log-probabilities (B, m).
        y: Class indices (B,).
        num_classes: Number of classes C.

    Returns:
        Shares (B,) whose mean is Γ.
    """
    log_p = _promote(log_p)
    class_sums = log_p.new_zeros(num_classes, log_p.shape[1]).index_add_(0, y, log_p)
    other_sums = class_sums.sum(dim=0) - class_sums
    return -(log_p.exp() * other_sums[y]).sum(dim=1) / log_p.shape[0]


def separation(log_p: Tensor, y: Tensor, log_s: Tensor, form: Separation = "pairwise") -> Tensor:
    """Separation Γ of the classes, in nats.

    Args:
        log_p: Log-probabilities (B, m).
        y: Class indices (B,).
        log_s: Log-centroids (C, m); the pairwise form takes only their number.
        form: ``pairwise`` (2309.09123) or ``centroid`` (2601.02543).

    Returns:
        Scalar.
    """
    if form == "pairwise":
        return pairwise_separation(log_p, y, log_s.shape[0]).mean()
    return others_mean(kl_to_centroids(log_p, log_s, "code_to_sample"), y).mean()


def ncmi(log_p: Tensor, y: Tensor, log_s: Tensor, form: Separation = "pairwise") -> Tensor:
    """Normalised conditional mutual information, CMI / Γ over the whole batch.

    Args:
        log_p: Log-probabilities (B, m).
        y: Class indices (B,).
        log_s: Log-centroids (C, m).
        form: Form of Γ, see :func:`separation`.

    Returns:
        Scalar; 0 is best. With a single class in the batch the pairwise Γ is 0 and the result is very large.
    """
    return cmi(log_p, y, log_s) / separation_floor(separation(log_p, y, log_s, form))
