"""One batch through the encoder; a fault costs the slides whose tiles bring it about, and no others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.encoders import Encoder, is_out_of_memory
from wsi_ncmi.extraction.pipeline.packing import Batch, Part

__all__ = ["begin_batch"]


def begin_batch(encoder: Encoder, batch: Batch) -> Callable[[], None]:
    """Starts to encode a batch.

    A batch that fails is tried again in parts: halves where memory ran out, else slide by slide, and a slide
    that fails again tile by tile. So what only this one batch could not do is done after all, and a slide is
    given up for a tile of its own alone.

    Args:
        encoder: The encoder.
        batch: Its tiles; those of slides that were given up are left out.

    Returns:
        A function that waits until every tile's vector is stored, or its slide given up. It raises nothing.
    """
    parts = tuple(part for part in batch.parts if part.work.error is None)
    if not parts:
        return lambda: None
    live = Batch(parts)
    try:
        result = encoder.begin(live.pixels)
    except Exception as error:
        _retry(encoder, live, error)
        return lambda: None

    def finish() -> None:
        try:
            features = result()
        except Exception as error:
            _retry(encoder, live, error)
            return
        _store(encoder, live, features)

    return finish


def _encode(encoder: Encoder, batch: Batch) -> None:
    try:
        features = encoder.encode(batch.pixels)
    except Exception as error:
        _retry(encoder, batch, error)
        return
    _store(encoder, batch, features)


def _retry(encoder: Encoder, batch: Batch, error: Exception) -> None:
    if is_out_of_memory(error) and len(batch) > 1:
        for part in batch.parts:
            part.work.remark("memory ran out, so batches were halved")
        for half in _halves(batch):
            _encode(encoder, half)
    elif len(batch.parts) > 1:
        for part in batch.parts:
            _encode(encoder, Batch((part,)))
    else:
        _tile_by_tile(encoder, batch.parts[0])


def _tile_by_tile(encoder: Encoder, part: Part) -> None:
    for place in range(len(part)):
        tile = part[place : place + 1]
        try:
            features = encoder.encode(tile.pixels)
        except Exception as error:
            assert part.work.prepared is not None
            x, y = part.work.prepared.selection.coords[int(tile.rows[0])].tolist()
            part.work.fail(error, f" (at its tile at x {x}, y {y}).")
            return
        _store(encoder, Batch((tile,)), features)
        if part.work.error is not None:
            return


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    left: list[Part] = []
    right: list[Part] = []
    room = len(batch) // 2
    for part in batch.parts:
        take = min(room, len(part))
        room -= take
        if take:
            left.append(part[:take])
        if take < len(part):
            right.append(part[take:])
    return Batch(tuple(left)), Batch(tuple(right))


def _store(encoder: Encoder, batch: Batch, features: NDArray[np.float32]) -> None:
    start = 0
    for part in batch.parts:
        try:
            part.work.store(part.rows, features[start : start + len(part)], encoder.info.name)
            part.work.remark(encoder.remark)
        except Exception as error:  # a value beyond float16 is its slide's fault alone
            part.work.fail(error)
        start += len(part)
