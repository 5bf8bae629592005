"""Slide encoders: one vector from the features of a slide's tiles, and what those tiles must be.

Facts: mahmoodlab/TRIDENT (``slide_encoder_models/load.py``) for the tile encoder of each and for TITAN's,
GigaPath's and PRISM's call; README of mahmoodlab/TITAN (512 px at 20×), paige-ai/Prism (224 px at 0.5 µm),
prov-gigapath (256 px at 0.5 µm), hms-dbmi/CHIEF (256 px at 10×), mahmoodlab/MADELEINE (256 px at 10×),
AtlasAnalyticsLab/MOOZY (224 px at 0.5 µm), and lazyslide-models' ``encode_slide`` of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_ncmi.core.errors import InputError, SlideError, first_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_ZOO = "lazyslide:"
_GIGAPATH_TILE = 256


@dataclass(frozen=True)
class TileNeeds:
    """The tiles whose features a slide encoder was trained on.

    Attributes:
        encoders: Names of their encoder: ours, and the package's.
        width: Width of their features.
        tile_px: Edge of a tile, px.
        mpp: µm per pixel of a tile.
        embed_dim: Width of the slide's vector.
        placed: Their coordinates are used.
    """

    encoders: tuple[str, ...]
    width: int
    tile_px: int
    mpp: float
    embed_dim: int
    placed: bool = False


_CONCH15 = ("conch_v15", "lazyslide:conch_v1.5")
NEEDS: Mapping[str, TileNeeds] = {
    "lazyslide:titan": TileNeeds(_CONCH15, 768, 512, 0.5, 768, placed=True),
    "lazyslide:prism": TileNeeds(("virchow", "lazyslide:virchow"), 2560, 224, 0.5, 1280),
    "lazyslide:gigapath-slide-encoder": TileNeeds(
        ("gigapath", "lazyslide:gigapath"), 1536, 256, 0.5, 768, placed=True
    ),
    "lazyslide:gigapath-flash-slide-encoder": TileNeeds(
        ("gigapath_flash", "lazyslide:gigapath-flash"), 384, 256, 0.5, 384, placed=True
    ),
    "lazyslide:chief-slide-encoder": TileNeeds(("ctranspath_chief",), 768, 256, 1.0, 768),
    "lazyslide:madeleine": TileNeeds(("conch_v1",), 512, 256, 1.0, 512),
    "lazyslide:moozy": TileNeeds(("lazyslide:lunit-dino-s8-moozy",), 384, 224, 0.5, 768, placed=True),
}
"""Slide encoders of lazyslide-models that are served, and their tiles."""

FEATHER = {768: TileNeeds(_CONCH15, 768, 512, 0.5, 512),
           1536: TileNeeds(("uni_v2", "lazyslide:uni2"), 1536, 256, 0.5, 512)}  # fmt: skip
"""Tiles of MIL-Lab's pretrained ABMIL (``abmil.base.<encoder>.pc108-24k``) by the width of its input."""


@dataclass(frozen=True)
class SlideEncoder:
    """A slide encoder ready to encode.

    Attributes:
        name: Full name, as feature files have it.
        encode: Features (N, D) float32, level-0 corners (N, 2) and the tile's edge in level-0 pixels → the
            vector (E,).
        needs: Its tiles; None = any.
        weights_sha256: Hash of its tensors; ``none`` without.
        note: Of package and code it runs.
        licence: Of its weights.
    """

    name: str
    encode: Callable[[Tensor, Tensor, float], Tensor]
    needs: TileNeeds | None = None
    weights_sha256: str = "none"
    note: str = ""
    licence: str = ""


def mean_encoder(tile_encoder: str) -> SlideEncoder:
    """The mean of the tiles' features; named as in TRIDENT, ``mean-<tile encoder>``."""
    return SlideEncoder(f"mean-{tile_encoder or 'unknown'}", lambda features, *_: features.mean(dim=0))


def check_tiles(
    name: str, needs: TileNeeds, tiles: Mapping[str, Any], width: int, *, other_grid: bool = False
) -> str:
    """Refuses features of other tiles than a slide encoder was trained on.

    Args:
        name: The slide encoder.
        needs: What it takes.
        tiles: ``encoder``, ``mpp_target`` and ``tile_px`` of the features.
        width: Their width.
        other_grid: Accept another resolution or tile size.

    Returns:
        The warning where another grid was accepted; else empty.

    Raises:
        InputError: Another encoder, width, resolution or tile size.
    """
    names = " or ".join(needs.encoders)
    if tiles.get("encoder") not in needs.encoders:
        raise InputError(
            f"{name} takes the features of {names}, these are of {tiles.get('encoder')}; extract with "
            f"--encoder {needs.encoders[0]}."
        )
    if width != needs.width:
        raise InputError(f"{name} takes features of width {needs.width} ({names}), these have {width}.")
    mpp, px = float(tiles.get("mpp_target") or 0), int(tiles.get("tile_px") or 0)
    if math.isclose(mpp, needs.mpp, rel_tol=0.02) and px == needs.tile_px:
        return ""
    said = f"{name} was trained on tiles of {needs.tile_px} px at {needs.mpp} µm per pixel, these are "
    said += f"{px} px at {mpp:g}"
    if not other_grid:
        raise InputError(
            f"{said}; extract with --mpp {needs.mpp} --tile-px {needs.tile_px}, or accept it with "
            "--allow-other-grid."
        )
    return f"{said}."


def needs_of(name: str) -> TileNeeds:
    """What a slide encoder of lazyslide-models takes.

    Raises:
        InputError: There is none of that name, it is refused, or a package that it needs isn't installed.
    """
    from wsi_ncmi.encoders.zoo import find_zoo_model

    if not name.startswith(_ZOO):
        raise InputError(f"There is no slide encoder {name!r}; known are mean, feather, {', '.join(NEEDS)}.")
    find_zoo_model(name.removeprefix(_ZOO), slide=True)
    if name not in NEEDS:
        raise InputError(f"{name} isn't served by encode-slides; known are {', '.join(NEEDS)}.")
    return NEEDS[name]


def open_zoo_slide_encoder(name: str, weights_dir: Path | None, device: str) -> SlideEncoder:
    """Builds a slide encoder of lazyslide-models from its snapshot.

    Args:
        name: ``lazyslide:KEY``.
        weights_dir: The weights folder.
        device: Where it runs.

    Raises:
        InputError: As :func:`needs_of`; or its snapshot is not there, was changed, or can't be built.
    """
    import torch

    from wsi_ncmi.encoders.encoder_files import find_snapshot
    from wsi_ncmi.encoders.zoo import find_zoo_model
    from wsi_ncmi.encoders.zoo_models import open_zoo

    needs = needs_of(name)
    model = find_zoo_model(name.removeprefix(_ZOO), slide=True)
    zoo = open_zoo(model, find_snapshot(model, weights_dir))
    zoo.module.to(device)
    call = zoo_call(name, zoo.object)

    def encode(features: Tensor, coords: Tensor, edge: float) -> Tensor:
        with torch.inference_mode():
            return call(features.to(device), coords.to(device), edge).float().cpu().reshape(-1)

    return SlideEncoder(name, encode, needs, zoo.sha256, zoo.note, zoo.snapshot.licence)


def zoo_call(name: str, made: Any) -> Callable[[Tensor, Tensor, float], Tensor]:
    """``encode_slide`` of the package with the coordinates and the scale that each encoder takes.

    TITAN's positions are level-0 corners over the tile's level-0 edge; GigaPath's own grid is of tiles of 256
    px, so corners are brought to that; MOOZY's distances are in tiles of the given edge. The others know no
    places.

    Args:
        name: Full name of the encoder.
        made: The package's object.
    """

    def call(x: Tensor, coords: Tensor, edge: float) -> Tensor:
        if name == "lazyslide:moozy":
            found = made.encode_slide(x, coords.float(), patch_sizes=edge)
        elif name == "lazyslide:titan":
            found = made.encode_slide(x[None], coords[None].long(), base_tile_size=round(edge))
        elif name.startswith("lazyslide:gigapath"):
            found = made.encode_slide(x[None], coords[None].float() * (_GIGAPATH_TILE / edge))
        else:
            found = made.encode_slide(x[None])
        embeddings: Tensor = found["embeddings"]
        return embeddings

    return call


def stored_vector(
    encoder: SlideEncoder, features: NDArray[np.floating[Any]], coords: NDArray[np.int64], edge: float
) -> NDArray[np.float16]:
    """As :func:`slide_vector`, (1, E) in float16 as files hold it."""
    import numpy as np

    half = np.asarray(features, np.float16)
    return slide_vector(encoder, half, coords, edge)[None].astype(np.float16)


def slide_vector(
    encoder: SlideEncoder, features: NDArray[np.floating[Any]], coords: NDArray[np.int64], edge: float
) -> NDArray[np.float32]:
    """The vector (E,) of a slide's tiles.

    Args:
        encoder: The slide encoder.
        features: (N, D), N at least 1.
        coords: Level-0 corners (N, 2).
        edge: Edge of a tile in level-0 pixels.

    Raises:
        SlideError: The encoder fails, or gives numbers that are not finite.
    """
    import numpy as np
    import torch

    if encoder.needs is not None and encoder.needs.placed and edge <= 0:
        raise SlideError(f"{encoder.name} needs the tiles' size in level-0 pixels, which isn't told.")
    try:
        vector = encoder.encode(
            torch.from_numpy(np.asarray(features, np.float32)), torch.from_numpy(np.asarray(coords)), edge
        )
    except Exception as error:  # code of others
        raise SlideError(f"{encoder.name} fails on {len(features)} tiles ({first_line(error)}).") from error
    found: NDArray[np.float32] = vector.reshape(-1).numpy()
    if not np.isfinite(found).all():
        raise SlideError(f"{encoder.name} gave numbers that are not finite.")
    return found
