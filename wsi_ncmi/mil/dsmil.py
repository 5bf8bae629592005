"""DSMIL: instances weighted by their similarity to the critical instance of each class.

Source: Li, Li, Eliceiri, "Dual-stream Multiple Instance Learning Network for Whole Slide Image Classification
with Self-supervised Contrastive Learning", CVPR 2021, arXiv 2011.08939, section 3.2; layers and defaults as
in the authors' code.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.config import DsmilConfig
from wsi_ncmi.mil.segments import promote, segment_branch_sums, segment_softmax


class DSMIL(Aggregator):
    """Two streams: instance scores find a critical instance a class, queries compare all others with it.

    a_kc = softmax_k(q_kᵀ q_{m(c)} / √Q) with m(c) the instance of the highest score of class c; the embedding
    is the C sums Σ_k a_kc v_k side by side, on which a linear head is the published convolution.

    Args:
        in_features: Width D of the instance features.
        num_classes: C.
        input_dropout: Dropout on the instance features.
        config: DSMIL's own settings.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        input_dropout: float = 0.0,
        config: DsmilConfig | None = None,
    ) -> None:
        super().__init__(in_features, num_classes * in_features)
        self.config = config or DsmilConfig()
        self.num_classes = num_classes
        width = self.config.query_width
        self.input_dropout = FastDropout(input_dropout)
        self.instances = nn.Linear(in_features, num_classes)
        layers: list[nn.Module] = [nn.Linear(in_features, width)]
        if self.config.query == "nonlinear":
            layers += [nn.ReLU(), nn.Linear(width, width), nn.Tanh()]
        self.query = nn.Sequential(*layers)
        self.value_dropout = FastDropout(self.config.value_dropout)
        self.value = None if self.config.value == "identity" else nn.Linear(in_features, in_features)
        self.add_head(num_classes)

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`); the auxiliary loss is ``critical_instance``."""
        features = self.input_dropout(self.prepared(batch))
        scores = promote(self.instances(features))
        queries = promote(self.query(features))
        critical = self._critical(scores, batch)
        with torch.autocast(queries.device.type, enabled=False):
            compared = [
                bag @ critical.T
                for bag, critical in zip(
                    torch.split(queries, batch.sizes), queries[critical], strict=True
                )
            ]  # fmt: skip
            attention = segment_softmax(torch.cat(compared) / self.config.query_width**0.5, batch)
        embedding = segment_branch_sums(self._values(features), attention, batch).flatten(1)
        auxiliary = {}
        if self.training and self.config.instance_weight > 0:
            known = self.needed_labels(labels, batch, "a loss of its critical instances")
            best = scores.gather(0, critical)
            auxiliary["critical_instance"] = self.config.instance_weight * self._loss(best, known)
        return AggregatorOutput(embedding, attention.mean(1), auxiliary, attention)

    @staticmethod
    def _critical(scores: Tensor, batch: BagBatch) -> Tensor:
        # Position of the best instance of each class in each bag, (B, C).
        best, start = [], 0
        for bag in torch.split(scores.detach(), batch.sizes):
            best.append(bag.argmax(dim=0) + start)
            start += len(bag)
        return torch.stack(best)

    def _values(self, features: Tensor) -> Tensor:
        if self.value is None:
            return features
        values: Tensor = self.value(self.value_dropout(features))
        return values.relu() if self.config.value == "relu" else values

    def _loss(self, best: Tensor, labels: Tensor) -> Tensor:
        if self.config.instance_loss == "ce":
            return cross_entropy(best, labels)
        return binary_cross_entropy_with_logits(best, one_hot(labels, self.num_classes).to(best.dtype))
