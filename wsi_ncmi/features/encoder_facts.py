"""What of an encoder decides its numbers, for those who need no encoder."""

from __future__ import annotations

import dataclasses
from typing import Protocol

__all__ = ["EncoderFacts", "EncoderSummary"]


class EncoderFacts(Protocol):
    """What of an encoder decides its numbers; every ``Encoder`` has these."""

    @property
    def name(self) -> str:
        """Full name, for example ``torchvision:squeezenet1_1``."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the tensors in use."""

    @property
    def weights_source(self) -> str:
        """Where the weights come from; for the record only, it decides nothing."""

    @property
    def transform(self) -> str:
        """Canonical text of what happens to pixels before the network."""

    @property
    def precision(self) -> str:
        """Arithmetic of the forward pass."""

    @property
    def backend(self) -> str:
        """What computes it."""


@dataclasses.dataclass(frozen=True)
class EncoderSummary:
    """The facts alone, to be sent between processes; see ``EncoderFacts``."""

    name: str
    weights_sha256: str
    weights_source: str
    transform: str
    precision: str
    backend: str

    @classmethod
    def of(cls, encoder: EncoderFacts) -> EncoderSummary:
        """Copies the facts of an encoder."""
        return cls(*(str(getattr(encoder, field.name)) for field in dataclasses.fields(cls)))
