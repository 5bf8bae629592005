"""What an encoder is, without the encoder: enough to name files and to tell two machines' numbers apart."""

from __future__ import annotations

from dataclasses import dataclass, fields

from wsi_ncmi.encoders import Encoder

__all__ = ["EncoderCard"]


@dataclass(frozen=True)
class EncoderCard:
    """The attributes of an encoder that decide its numbers; picklable. They are those of ``Encoder``."""

    name: str
    width: int
    transform: str
    weights_sha256: str
    weights_source: str
    precision: str
    backend: str
    batch_size: int | None

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderCard:
        """The card of a loaded encoder."""
        return cls(**{field.name: getattr(encoder, field.name) for field in fields(cls)})

    def difference(self, other: EncoderCard) -> str:
        """The first attribute in which another card gives other numbers, in words; empty where none does."""
        for name in ("name", "width", "transform", "weights_sha256", "precision", "backend", "batch_size"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                return f"{name} {its} instead of {mine}"
        return ""
