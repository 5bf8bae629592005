"""What reading gives out (a batch), and the part of it that is prepared together (a group)."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["TileBatch", "TileGroup"]


@dataclass(frozen=True)
class TileBatch:
    """Some tiles of a selection.

    Attributes:
        rows: Their positions in the selection, int64 (n,).
        pixels: uint8 (n, tile_px, tile_px, 3), RGB; zeros where ``failed``.
        failed: bool (n,): the read failed; these pixels are no tissue and must not be embedded.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    failed: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TileGroup:
    """Tiles of a batch that are prepared together.

    Attributes:
        batch: The batch.
        places: Their places in it.
        tasks: What threads do for them.
    """

    batch: TileBatch
    places: range
    tasks: list[Future[None]] = field(default_factory=list)

    @property
    def wanted(self) -> range:
        """Their positions in the selection."""
        start = int(self.batch.rows[0])
        return range(start + self.places.start, start + self.places.stop)
