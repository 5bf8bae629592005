"""How an engine is laid out, and how much it had to do."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Load", "PipelineConfig"]


@dataclass(frozen=True)
class PipelineConfig:
    """Threads and memory of one engine; what the numbers of a feature file depend on is none of it.

    Attributes:
        batch_size: Tiles of a batch where the encoder does not say itself.
        lanes: Threads that encode, each on one core (CPU); one is enough for a CUDA device.
        readers: Slides read at a time.
        decode_threads: Threads that decode the tiles of one slide.
        buffer_bytes: Decoded pixels on their way to the encoder, all slides together.
        slide_bytes: Masks and features of slides that are not published yet, all together; one slide is
            always let in.
    """

    batch_size: int = 16
    lanes: int = 1
    readers: int = 1
    decode_threads: int = 1
    buffer_bytes: int = 256 << 20
    slide_bytes: int = 2 << 30


@dataclass(frozen=True)
class Load:
    """What an engine has done so far.

    Attributes:
        tiles: Tiles encoded.
        busy_s: Seconds in which the lanes encoded, summed over them.
        open_s: Seconds in which they could have, from the first tile read to the last one encoded.
    """

    tiles: int = 0
    busy_s: float = 0.0
    open_s: float = 0.0

    @property
    def idle_share(self) -> float:
        """Share of the lanes' time that passed without work, 0 to 1."""
        return max(0.0, 1.0 - self.busy_s / self.open_s) if self.open_s > 0 else 0.0

    def __add__(self, other: Load) -> Load:
        return Load(self.tiles + other.tiles, self.busy_s + other.busy_s, self.open_s + other.open_s)
