"""AEM: gated attention pooling with the negative entropy of its attention in the loss.

Source: Zhang, Shui, Sun, Li, Li, Zhu, Yang, "AEM: Attention Entropy Maximization for Multiple Instance
Learning based Whole Slide Image Classification", arXiv 2406.15303: L = L_ce + λ Σ a log a; λ and widths as in
the authors' code.
"""

from torch import Tensor

from wsi_ncmi.mil.abmil import GatedABMIL
from wsi_ncmi.mil.base import AggregatorOutput, BagBatch
from wsi_ncmi.mil.config import AemConfig
from wsi_ncmi.mil.segments import promote


def negative_entropy(attention: Tensor, batch: BagBatch) -> Tensor:
    """Σ_k a_k log a_k of each bag, averaged over the bags; an instance of weight 0 adds nothing.

    Args:
        attention: (ΣN,), summing to 1 in each bag.
        batch: The bags.
    """
    attention = promote(attention)
    # The floor keeps the gradient finite where the softmax gave exactly 0.
    return (attention * attention.clamp_min(1e-30).log()).sum() / len(batch)


class AEM(GatedABMIL):
    """Gated ABMIL with λ Σ_k a_k log a_k as auxiliary loss.

    Args:
        in_features: Width D of the instance features.
        num_classes: Number of classes C of the classifier on top; None = none, the embedding is the result.
        hidden: Width of the projection = width of the embedding.
        attention: Width of the attention branch.
        dropout: Dropout after the projection and inside the attention branch.
        input_dropout: Dropout on the instance features.
        config: AEM's own settings.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int | None = None,
        hidden: int = 512,
        attention: int = 128,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        config: AemConfig | None = None,
    ) -> None:
        super().__init__(in_features, num_classes, hidden, attention, dropout, input_dropout)
        self.config = config or AemConfig()

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`); the auxiliary loss is ``attention_entropy``."""
        output = super().embed(batch, labels)
        if not self.training or self.config.entropy_weight == 0:
            return output
        term = self.config.entropy_weight * negative_entropy(output.attention, batch)
        return AggregatorOutput(output.embedding, output.attention, {"attention_entropy": term})
