"""Tiles read by one program: ``reading.py PROGRAM JOB``.

The job names the slide, its tiles (``xy`` at level 0), ``size`` (edge at the level that is read), ``level``
with its ``factor``, ``tile`` (edge wanted) and ``threads``. Where both edges differ, the program reduces by
area: its own way where it has one (OpenSlide's users: Pillow), else OpenCV's, the fastest there is.
"""

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from common import Job, run

Read = Callable[[int, int], np.ndarray]
PASSES = 3


def reduced(job: Job, pixels: np.ndarray) -> np.ndarray:
    """The tile wanted, of the pixels that were read."""
    if job["size"] == job["tile"]:
        return pixels
    import cv2

    return cv2.resize(pixels, (job["tile"], job["tile"]), interpolation=cv2.INTER_AREA)


def openslide(job: Job) -> Read:
    """The usual loop: ``read_region``, conversion to RGB, Pillow's box filter."""
    import openslide
    from PIL import Image

    slide = openslide.OpenSlide(job["slide"])
    size, tile = (job["size"],) * 2, (job["tile"],) * 2

    def read(x: int, y: int) -> np.ndarray:
        region = slide.read_region((x, y), job["level"], size).convert("RGB")
        return np.asarray(region if size == tile else region.resize(tile, Image.Resampling.BOX))

    return read


def cucim(job: Job, cache: bool = False) -> Read:
    """``CuImage.read_region`` on the CPU; with or without its cache of decoded tiles."""
    from cucim import CuImage

    if cache:
        CuImage.cache("per_process", memory_capacity=512)
    slide, size = CuImage(job["slide"]), (job["size"],) * 2
    return lambda x, y: reduced(job, np.asarray(slide.read_region((x, y), size, job["level"])))


def pyvips(job: Job) -> Read:
    """A ``Region`` of the level's page."""
    import pyvips

    region = pyvips.Region.new(pyvips.Image.new_from_file(job["slide"], page=job["level"]))
    size, factor = job["size"], job["factor"]

    def read(x: int, y: int) -> np.ndarray:
        pixels = np.frombuffer(region.fetch(x // factor, y // factor, size, size), np.uint8)
        return reduced(job, pixels.reshape(size, size, -1)[..., :3])

    return read


def fastslide(job: Job) -> Read:
    """``FastSlide.read_region``, whose positions are those of the level."""
    import fastslide

    slide, size, factor = fastslide.FastSlide.from_file_path(job["slide"]), (job["size"],) * 2, job["factor"]

    def read(x: int, y: int) -> np.ndarray:
        region = slide.read_region((x // factor, y // factor), job["level"], size)
        return reduced(job, region.numpy()[..., :3])

    return read


def tiffslide(job: Job) -> Read:
    """``TiffSlide.read_region`` as an array."""
    import tiffslide

    slide, size = tiffslide.TiffSlide(job["slide"]), (job["size"],) * 2
    return lambda x, y: reduced(job, slide.read_region((x, y), job["level"], size, as_array=True))


def slideio(job: Job) -> Read:
    """``Scene.read_block``, which chooses the level and resizes by itself."""
    import slideio

    scene = slideio.open_slide(job["slide"], "SVS").get_scene(0)
    edge, tile = job["size"] * job["factor"], (job["tile"],) * 2
    return lambda x, y: np.asarray(scene.read_block((x, y, edge, edge), tile))


def peer(opened: Callable[[Job], Read]) -> Callable[[Job], Job]:
    """Measures a peer: each thread has a handle of its own."""

    def one_pass(job: Job, keep: list[np.ndarray] | None) -> dict[str, float]:
        before = time.process_time()
        first = opened(job)
        open_cpu = time.process_time() - before
        if job["threads"] == 1:
            with _Clock() as clock:
                for x, y in job["xy"]:
                    pixels = first(x, y)
                    if keep is not None:
                        keep.append(pixels.copy())
        else:
            local = threading.local()

            def share(part: list[list[int]]) -> None:
                if not hasattr(local, "read"):
                    local.read = opened(job)
                for x, y in part:
                    local.read(x, y)

            parts = [job["xy"][start : start + 32] for start in range(0, len(job["xy"]), 32)]
            with ThreadPoolExecutor(job["threads"]) as pool, _Clock() as clock:
                list(pool.map(share, parts))
        return {"open_cpu": open_cpu, "cpu": clock.cpu, "wall": clock.wall}

    return lambda job: passes(job, one_pass)


def ours(job: Job) -> Job:
    """``TileReader`` over the grid that has the job's tiles."""
    from wsi_ncmi.parallel import keep_large_buffers
    from wsi_ncmi.slides import Mpp, open_slide
    from wsi_ncmi.tiling import GridConfig, TileGrid, TileReader, TileSelection

    keep_large_buffers()  # as each worker of ``extract`` does
    mpp, wanted = job["mpp"], job["mpp"] * job["size"] * job["factor"] / job["tile"]

    def one_pass(job: Job, keep: list[np.ndarray] | None) -> dict[str, float]:
        before = time.process_time()
        with open_slide(job["slide"]) as slide:
            open_cpu = time.process_time() - before
            grid = TileGrid.plan(
                slide.levels, Mpp(mpp, mpp, "job"), GridConfig(mpp=wanted, tile_px=job["tile"], overlap_px=0)
            )
            edge = job["size"] * job["factor"]
            indices = np.array([y // edge * grid.n_columns + x // edge for x, y in job["xy"]])
            coords = grid.coords(indices)
            assert (coords == np.array(job["xy"])).all()
            selection = TileSelection(indices, coords, np.ones(len(indices), np.float16))
            with TileReader(slide, grid, selection, threads=job["threads"]) as reader, _Clock() as clock:
                for batch in reader.batches(32):
                    assert not batch.failed.any()
                    if keep is not None:
                        keep.extend(batch.pixels.copy())
        return {"open_cpu": open_cpu, "cpu": clock.cpu, "wall": clock.wall}

    return passes(job, one_pass)


class _Clock:
    """Processor time of all threads, and wall time, of a block."""

    def __enter__(self) -> "_Clock":
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall


def passes(job: Job, one_pass: Callable[[Job, list[np.ndarray] | None], dict[str, float]]) -> Job:
    """A pass to warm up, of which pixels are kept where the job asks for them, and those that count."""
    keep: list[np.ndarray] | None = [] if job.get("pixels") else None
    one_pass(job, keep)
    if keep is not None:
        np.save(job["pixels"], np.stack(keep)[:: max(1, len(keep) // 64)])
    taken = [one_pass(job, None) for _ in range(PASSES)]
    middle = {name: statistics.median(one[name] for one in taken) for name in taken[0]}
    return {"tiles": len(job["xy"]), **middle}


PROGRAMS: dict[str, Any] = {
    "ours": ours,
    "openslide": peer(openslide),
    "cucim": peer(cucim),
    "cucim-cache": peer(lambda job: cucim(job, cache=True)),
    "pyvips": peer(pyvips),
    "fastslide": peer(fastslide),
    "tiffslide": peer(tiffslide),
    "slideio": peer(slideio),
}

if __name__ == "__main__":
    run(PROGRAMS)
