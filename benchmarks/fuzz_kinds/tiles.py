"""Slides of which one stored tile of the first level is damaged."""

import random
from collections.abc import Iterator
from pathlib import Path

from fuzz_kinds.bases import SIDE_PX, TILE_PX, Base, make_bases
from fuzz_kinds.harness import Regions, Result
from fuzz_kinds.slides import run_jobs


def inputs(count: int, seed: int, work: Path, data: Path | None) -> Iterator[Result]:
    """Slides of which one stored tile of the first level is damaged."""
    bases = [base for base in make_bases(work / "bases", data) if base.name not in ("strips", "subifds")]
    yield from run_jobs(bases, count, f"{seed} tiles", work, _one_tile)


def _one_tile(base: Base, rng: random.Random) -> Regions:
    tiles = base.regions["data"]
    return {
        "data": [rng.choice(tiles if base.name.startswith("dicom") else tiles[: (SIDE_PX // TILE_PX) ** 2])]
    }
