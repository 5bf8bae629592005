"""The probe tiles: twelve drawn pictures, like H&E, that every machine draws to the last bit (CC0)."""

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

PROBE = "wsi-ncmi probe 1"
"""Name of the set; another drawing gets another name."""

_WHITE, _STROMA, _NUCLEUS = (242, 240, 243), (226, 158, 196), (96, 62, 140)


def probe_tiles() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Eight tiles of 256 px and four of 512 px: uint8 (8, 256, 256, 3) and (4, 512, 512, 3).

    Whole numbers alone, no random generator: the same bytes with every version of every package.
    """
    small, large = _drawn(256, 0, 8), _drawn(512, 8, 12)
    return small.copy(), large.copy()


@cache
def _drawn(edge: int, first: int, end: int) -> NDArray[np.uint8]:
    return np.stack([_tile(seed, edge) for seed in range(first, end)])


def tiles_sha256(sets: Sequence[NDArray[np.uint8]]) -> str:
    """SHA-256 over shape and bytes of sets of tiles."""
    digest = hashlib.sha256()
    for tiles in sets:
        digest.update(f"{tiles.shape}\n".encode())
        digest.update(np.ascontiguousarray(tiles).data)
    return digest.hexdigest()


def _tile(seed: int, edge: int) -> NDArray[np.uint8]:
    """Stroma in bands beside a gap, with nuclei; each tile has more nuclei than the one before."""
    rows, columns = np.mgrid[0:edge, 0:edge].astype(np.int64)
    noise = _hash(rows * edge + columns + (seed << 32)) % 24
    band = (rows * (3 + seed % 3) + columns * (2 + seed % 5) + noise) % 64
    stroma = np.abs(band - 32) + noise - 20
    image = np.stack([channel + stroma // 2 for channel in _STROMA], axis=-1)
    gap = (columns - edge // 4) ** 2 + (rows - edge // 2) ** 2 < (edge // (5 + seed)) ** 2
    image[gap] = np.array(_WHITE) + (noise[gap] // 4)[:, None]
    for index in range((6 + 5 * seed) * (edge // 256) ** 2):
        x, y, wide, high = (int(_hash(np.int64(4 * (1000 * seed + index) + place))) for place in range(4))
        x, y, wide, high = x % edge, y % edge, 4 + wide % 8, 4 + high % 6
        part = np.s_[max(0, y - high) : y + high, max(0, x - wide) : x + wide]
        inside = (columns[part] - x) ** 2 * high**2 + (rows[part] - y) ** 2 * wide**2 < (wide * high) ** 2
        image[part][inside] = np.array(_NUCLEUS) + (noise[part][inside] - 8)[:, None]
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def _hash(numbers: NDArray[np.int64] | np.int64) -> NDArray[np.int64]:
    """A well mixed whole number of 31 bits for each (the finaliser of splitmix64, Steele et al. 2014)."""
    mixed = np.atleast_1d(np.asarray(numbers)).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    found = ((mixed ^ (mixed >> np.uint64(31))) & np.uint64(0x7FFFFFFF)).astype(np.int64)
    return found if np.ndim(numbers) else found[0]
