"""CMI-constrained cross-entropy (CMIC-DL), the forerunner of NCMI."""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wsi_ncmi.losses.base import LogitCriterion
from wsi_ncmi.losses.functional import class_means, cmi, pairwise_separation


class CMIConstrained(LogitCriterion):
    """L = CE + λ · CMI − β · Γ on the softmax outputs, with class centroids updated alternately.

    Source: Yang et al., "Conditional Mutual Information Constrained Deep Learning for Classification", arXiv
    2309.09123: concentration E KL(P_X ‖ Q_Y), pairwise separation E[1{Y≠V} H(P_X, P_U)] over the batch's
    pairs, and the alternating algorithm. Between the closed-form class means of :meth:`end_epoch` the
    centroids follow the batches as a running mean, so that the first epoch and loops without the hook have
    sound ones too. −Γ has no lower
    bound: keep β small against 1.

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding, or None for logits.
        cmi_weight: λ.
        gamma_weight: β.
        momentum: Weight of the past in the running mean of a centroid.

    Attributes:
        centroids: Q, (C, C) buffer; uniform until a class was seen.
        seen: Whether a class was seen, (C,) bool buffer.
    """

    centroids: Tensor
    seen: Tensor

    def __init__(
        self,
        num_classes: int,
        in_features: int | None = None,
        *,
        cmi_weight: float = 0.5,
        gamma_weight: float = 0.1,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(num_classes, in_features)
        self.cmi_weight = cmi_weight
        self.gamma_weight = gamma_weight
        self.momentum = momentum
        self.register_buffer("centroids", torch.full((num_classes, num_classes), 1 / num_classes))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))
        self.needs_epoch_pass = True

    def loss_from_logits(self, logits: Tensor, y: Tensor) -> Tensor:
        """CE + λ·CMI − β·Γ of the batch; in training the centroids are updated first."""
        log_p = logits.log_softmax(dim=-1)
        if self.training:
            self._update(log_p.detach(), y, self.momentum)
        log_q = self.centroids.to(log_p.dtype).clamp(min=math.exp(-80)).log()
        concentration = cmi(log_p, y, log_q)
        separation = pairwise_separation(log_p, y, self.num_classes).mean()
        ce = cross_entropy(logits, y)
        return ce + self.cmi_weight * concentration - self.gamma_weight * separation

    @torch.no_grad()
    def end_epoch(self, z: Tensor, y: Tensor) -> None:
        """Closed-form step: the centroids become the class means of all training outputs (N, E), (N,)."""
        z, y = self._checked(z, y)
        self._update(self.log_proba(z), y, 0.0)

    @torch.no_grad()
    def _update(self, log_p: Tensor, y: Tensor, momentum: float) -> None:
        log_means, counts = class_means(log_p, y, self.num_classes)
        means = log_means.exp().to(self.centroids.dtype)
        share = torch.where(self.seen, 1 - momentum, 1.0) * (counts > 0)
        self.centroids.copy_(torch.lerp(self.centroids, means, share.to(means.dtype).unsqueeze(1)))
        self.seen.logical_or_(counts > 0)
