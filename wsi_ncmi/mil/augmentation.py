"""Random perturbations of the instance features in training: dropout and mixing of instances."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from wsi_ncmi.mil.bags import BagBatch

_LEVELS = 1 << 16


class FastDropout(nn.Module):
    """Inverted dropout as ``nn.Dropout``, with 16 random bits an element on the CPU.

    ``bernoulli_`` draws one double an element and took a quarter of a training step of ABMIL; four elements
    share one 64-bit draw here (about ten times faster). The probability is exact to 1/65,536 and the scale
    belongs to the rounded one, so that the expectation is unchanged. Follows ``torch.manual_seed``. On other
    devices it is torch's own dropout.

    Args:
        p: Probability of zeroing an element, in [0, 1).
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p
        self._threshold = round(p * _LEVELS)

    def extra_repr(self) -> str:
        """The probability, for ``repr``."""
        return f"p={self.p}"

    def forward(self, x: Tensor) -> Tensor:
        """Zeroes elements of ``x`` (any shape) in training; the identity otherwise."""
        if not self.training or self._threshold == 0:
            return x
        if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
            return dropout(x, self.p, training=True)
        mask = self.mask(x.shape, x.dtype)
        return x if mask is None else x * mask.mul_(self.scale)

    @property
    def scale(self) -> float:
        """Factor of the elements that are kept, 1/(1 − p)."""
        return _LEVELS / (_LEVELS - self._threshold)

    def mask(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """Mask of the elements of a CPU tensor that are kept in training: 1 or 0; None if all are kept.

        Args:
            shape: Of the tensor.
            dtype: Floating dtype of the mask.
        """
        if not self.training or self._threshold == 0:
            return None
        count = math.prod(shape)
        draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[:count].view(*shape)
        mask = torch.empty(shape, dtype=dtype)
        return torch.ge(bits, self._threshold - _LEVELS // 2, out=mask)


def drop_features(features: Tensor, batch: BagBatch, p: float) -> Tensor:
    """Zeroes whole features of a bag: the same columns in all its instances, the rest scaled by 1/(1 − p).

    Dropping elements one by one (``input_dropout``) leaves thousands of other instances to tell what is
    missing; a column dropped in all of them is really gone.

    Args:
        features: (ΣN, D).
        batch: The batch they belong to.
        p: Share of columns, in [0, 1).
    """
    kept = torch.rand(len(batch), features.shape[1], device=features.device) >= p
    return features * (kept / (1.0 - p)).to(features.dtype)[batch.bag_index]


def mix_instances(features: Tensor, batch: BagBatch, alpha: float) -> Tensor:
    """Mixes every instance with another one of its bag: λ x_i + (1 − λ) x_π(i), λ = max(b, 1 − b).

    b is drawn from Beta(α, α), one a bag, and π is a random permutation of the bag, so the bag keeps its mean
    and its label.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv 1710.09412, within a
    bag in place of between samples.

    Args:
        features: (ΣN, D).
        batch: The batch they belong to.
        alpha: Parameter of the Beta distribution, above 0; larger mixes more.
    """
    share = torch.distributions.Beta(alpha, alpha).sample((len(batch), 1)).to(features)
    share = torch.maximum(share, 1.0 - share)[batch.bag_index]
    # Sorting by bag and then by a random number shuffles each bag in itself.
    keys = batch.bag_index + torch.rand(len(features), dtype=torch.float64, device=features.device)
    return share * features + (1.0 - share) * features[keys.argsort()]
