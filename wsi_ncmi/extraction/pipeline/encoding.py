"""Encoding of one batch; a fault costs the slides whose tiles cause it, and no others."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.encoders import Encoder, is_out_of_memory
from wsi_ncmi.extraction.pipeline.batching import Batch, TileChunk


def begin_batch(encoder: Encoder, batch: Batch) -> Callable[[], None]:
    """Starts to encode a batch.

    A batch that fails is tried again in parts: halves where memory ran out, else slide by slide, and a slide
    that fails again tile by tile. So a passing fault costs nothing, and a slide is given up only for a tile
    of its own.

    Args:
        encoder: The encoder.
        batch: Its tiles; those of slides that were given up are left out.

    Returns:
        A function that waits until every tile's vector is stored, or its slide given up. It raises nothing.
    """
    chunks = tuple(chunk for chunk in batch.chunks if chunk.work.error is None)
    if not chunks:
        return lambda: None
    live = Batch(chunks)
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
        for chunk in batch.chunks:
            chunk.work.remark("memory ran out, so batches were halved")
        for half in _halves(batch):
            _encode(encoder, half)
    elif len(batch.chunks) > 1:
        for chunk in batch.chunks:
            _encode(encoder, Batch((chunk,)))
    else:
        _tile_by_tile(encoder, batch.chunks[0])


def _tile_by_tile(encoder: Encoder, chunk: TileChunk) -> None:
    for index in range(len(chunk)):
        tile = chunk[index : index + 1]
        try:
            features = encoder.encode(tile.pixels)
        except Exception as error:
            assert chunk.work.prepared is not None
            x, y = chunk.work.prepared.selection.coords[int(tile.rows[0])].tolist()
            chunk.work.fail(error, f" (at its tile at x {x}, y {y}).")
            return
        _store(encoder, Batch((tile,)), features)
        if chunk.work.error is not None:
            return


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    left: list[TileChunk] = []
    right: list[TileChunk] = []
    missing = len(batch) // 2
    for chunk in batch.chunks:
        count = min(missing, len(chunk))
        missing -= count
        if count:
            left.append(chunk[:count])
        if count < len(chunk):
            right.append(chunk[count:])
    return Batch(tuple(left)), Batch(tuple(right))


def _store(encoder: Encoder, batch: Batch, features: NDArray[np.float32]) -> None:
    start = 0
    for chunk in batch.chunks:
        try:
            chunk.work.store(chunk.rows, features[start : start + len(chunk)], encoder.info.name)
            chunk.work.remark(encoder.remark)
        except Exception as error:  # a value beyond float16 is its slide's fault alone
            chunk.work.fail(error)
        start += len(chunk)
