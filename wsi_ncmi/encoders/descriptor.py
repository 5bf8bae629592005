"""The descriptor as an encoder: needs no weights and no network, and every value has a name."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.base import Encoder, EncoderInfo
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.descriptor_nuclei import nuclear_measures, nuclear_measures_names
from wsi_ncmi.encoders.descriptor_planes import (
    dct_energies,
    dct_energies_names,
    gradient_energies,
    gradient_energies_names,
    halve,
    pattern_histogram,
    pattern_histogram_names,
    separate_stains,
    stain_codes,
    stain_statistics,
    stain_statistics_names,
)

MIN_TILE_PX = 32  # one 8 × 8 block at a quarter of the resolution
_VERSION = 1  # to be raised whenever a value changes: it is part of a feature file's identity
_SCALES = 4
_EOSIN_SCALES = 3


def describe_tile(tile: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Describes one tile.

    Args:
        tile: uint8 (h, w, 3), RGB, at least 32 px a side.

    Returns:
        float32 (229,), finite, of magnitude below 100; the meaning of each is in :func:`descriptor_names`.
    """
    stains = separate_stains(tile)
    haematoxylin, eosin = [stains.haematoxylin], [stains.eosin]
    for _ in range(_SCALES - 1):
        haematoxylin.append(halve(haematoxylin[-1]))
        eosin.append(halve(eosin[-1]))
    parts = [stain_statistics(stains)]
    parts += [gradient_energies(plane) for plane in haematoxylin]
    parts += [gradient_energies(plane) for plane in eosin[:_EOSIN_SCALES]]
    parts += [pattern_histogram(codes) for codes in (stains.codes[0], *map(stain_codes, haematoxylin[1:3]))]
    parts += [pattern_histogram(codes) for codes in (stains.codes[1], stain_codes(eosin[1]))]
    parts += [dct_energies(haematoxylin[0]), dct_energies(haematoxylin[2])]
    parts += [nuclear_measures(haematoxylin[1], eosin[1])]
    return np.concatenate(parts).astype(np.float32)


@cache
def descriptor_names() -> tuple[str, ...]:
    """Names of the descriptor's values, in order; ``@2`` means at half the tile's resolution."""
    names = list(stain_statistics_names())

    def add(plane: str, scale: int, values: tuple[str, ...]) -> None:
        names.extend(f"{plane}@{scale} {value}" for value in values)

    for scale in range(_SCALES):
        add("haematoxylin", 2**scale, gradient_energies_names())
    for scale in range(_EOSIN_SCALES):
        add("eosin", 2**scale, gradient_energies_names())
    for plane, scale in (
        ("haematoxylin", 1),
        ("haematoxylin", 2),
        ("haematoxylin", 4),
        ("eosin", 1),
        ("eosin", 2),
    ):
        add(plane, scale, pattern_histogram_names())
    add("haematoxylin", 1, dct_energies_names())
    add("haematoxylin", 4, dct_energies_names())
    return (*names, *nuclear_measures_names())


class DescriptorEncoder(Encoder):
    """Weight-free encoder. Tiles are described one by one: a tile's planes stay in the processor's cache."""

    def __init__(self) -> None:
        self.info = EncoderInfo(
            name="descriptor",
            embed_dim=len(descriptor_names()),
            transform=f"descriptor {_VERSION}; own size; tile white point; Ruifrok-Johnston HED",
            weights_sha256="none",
            weights_source="none",
            precision="fp32",
            backend="numpy",
        )

    def _encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if pixels.shape[1] < MIN_TILE_PX:
            raise InputError(
                f"The descriptor needs tiles of at least {MIN_TILE_PX} px, not {pixels.shape[1]} px; "
                "raise --tile-px or choose another encoder."
            )
        return np.stack([describe_tile(tile) for tile in pixels])


def load_descriptor(_: str, config: EncoderConfig) -> Encoder:
    """Builds the descriptor; see :func:`wsi_ncmi.encoders.load_encoder`."""
    return DescriptorEncoder()
