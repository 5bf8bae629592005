"""Whole extraction of a cohort against the encoder alone, the bound of the cores, and the usual plain loop.

    python benchmarks/extraction.py [--seconds 30] [--json]

The cohort is synthetic: slides of 8,192 × 6,144 px (resnet50, about 110 tiles each) or 16,384 × 12,288 px
(squeezenet1_1, about 430) at 0.25 µm, JPEG q80, pyramid 1, 4, 16, tissue in the middle; tiles of 256 px at
0.5 µm. Real slides have thousands, so that what is done once a slide weighs less on them. All is measured
in one process, so that the start of processes (5 s for PyTorch) is not part of it; a worker pays it once.

- ``share_of_encoder`` (resnet50): tiles/s of inventory, tissue, reading, encoding and publishing together,
  over tiles/s of the same encoder, in as many threads, on tiles in memory. The latter before and after.
- ``share_of_bound`` (squeezenet1_1): tiles/s of the extraction over cores / (core-seconds a tile of the
  encoder with its transform + core-seconds a tile of reading); 1 means that all else is hidden or free.
- ``cpu_share_of_bound``: the same in core-seconds, which other work on the machine hardly touches.
- ``vs_peer_loop`` (squeezenet1_1): the extraction over the loop that is usual in this field: OpenSlide's
  ``read_region`` a tile, Pillow, a DataLoader with one process a core, the model as torchvision gives it.
- ``gpu_share_of_encoder`` (ViT-L/16): as the first one, where there is a CUDA device; else null.
- ``other_load``: share of the machine's core-seconds that other processes had meanwhile (Linux; else null).
  Above 0.03 the wall-clock shares say more about them than about us.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import simplejpeg
import tifffile
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.encoders import Encoder, EncoderConfig, load_encoder
from wsi_ncmi.extraction import ExecutionConfig, open_engine
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.slide import prepare_slide
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.parallel import available_cores, keep_large_buffers
from wsi_ncmi.slides import open_slide, take_inventory
from wsi_ncmi.tiling import GridConfig, TileReader

STORED_PX, TILE_PX = 256, 256
TISSUE = 0.55
SMALL, LARGE = (8192, 6144), (16384, 12288)
GRID = GridConfig(mpp=0.5, tile_px=TILE_PX)
CORES = available_cores()


class OtherLoad:
    """How much of the machine other processes have from now on."""

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float] | None:
        """Core-seconds of all other processes since the machine started, and seconds of wall time."""
        try:
            fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        except OSError:
            return None
        ticks = sum(fields[:3]) + sum(fields[5:8])  # not idle, not waiting for a disk; stolen time counts
        ours = os.times()
        spent = ours.user + ours.system + ours.children_user + ours.children_system
        return ticks / os.sysconf("SC_CLK_TCK") - spent, time.perf_counter()

    @property
    def share(self) -> float | None:
        """Share of the machine's core-seconds, 0 to 1."""
        now = self._now()
        if now is None or self._start is None:
            return None
        return (now[0] - self._start[0]) / ((now[1] - self._start[1]) * (os.cpu_count() or 1))


def write_slide(path: Path, seed: int, size: tuple[int, int]) -> None:
    """An Aperio-like slide: glass, and an ellipse of textured tissue; levels 1, 4 and 16."""
    rng = np.random.default_rng(seed)

    def texture(tissue: bool) -> NDArray[np.uint8]:
        pixels = np.zeros((STORED_PX, STORED_PX), np.float32)
        for step, weight in ((64, 40.0), (16, 35.0), (4, 20.0)):  # compartments, nuclei, chromatin
            grains = rng.normal(0, 1, (STORED_PX // step + 3,) * 2).astype(np.float32)
            layer = Image.fromarray(grains).resize((STORED_PX,) * 2, Image.Resampling.BICUBIC)
            pixels += weight * np.asarray(layer)
        colour = np.array([185.0, 120.0, 175.0]) + pixels[:, :, None] * np.array([0.8, 1.0, 0.55])
        if not tissue:
            colour = np.full_like(colour, 243.0)
        noisy: NDArray[np.uint8] = np.clip(colour + rng.normal(0, 2, colour.shape), 0, 255).astype(np.uint8)
        return noisy

    def encoded(pixels: NDArray[np.uint8]) -> bytes:
        return simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), quality=80, colorspace="RGB", colorsubsampling="420"
        )

    pictures = np.stack([*(texture(True) for _ in range(32)), texture(False)])
    streams = [encoded(picture) for picture in pictures]
    y, x = np.mgrid[: size[1] // STORED_PX, : size[0] // STORED_PX]
    centre = ((x + 0.5) * STORED_PX / size[0] - 0.5, (y + 0.5) * STORED_PX / size[1] - 0.5)
    inside = centre[0] ** 2 + centre[1] ** 2 < 0.42**2
    which = np.where(inside, rng.integers(0, 32, inside.shape), 32)
    with tifffile.TiffWriter(path) as file:
        for down in (1, 4, 16):
            width, height, side = size[0] // down, size[1] // down, STORED_PX // down
            # Every level shows the same: one that shows something else would be left out when it is opened.
            small = pictures.reshape(-1, side, down, side, down, 3).mean((2, 4)).astype(np.uint8)
            level = small[which].transpose(0, 2, 1, 3, 4).reshape(height, width, 3) if down > 1 else None
            tiles = [
                streams[which[top // STORED_PX, left // STORED_PX]]
                if level is None
                else encoded(_whole(level[top : top + STORED_PX, left : left + STORED_PX]))
                for top in range(0, height, STORED_PX)
                for left in range(0, width, STORED_PX)
            ]
            file.write(
                iter(tiles), shape=(height, width, 3), dtype=np.uint8, tile=(STORED_PX,) * 2, compression=7,
                photometric="ycbcr", subsampling=(2, 2), metadata=None, subfiletype=1 if down > 1 else 0,
                description="Aperio Image Library v1\n|AppMag = 40|MPP = 0.25" if down == 1 else None,
            )  # fmt: skip


def _whole(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A stored tile that the level's edge cuts, its last pixels repeated."""
    missing = [(0, STORED_PX - side) for side in tile.shape[:2]]
    return np.pad(tile, [*missing, (0, 0)], mode="edge")


def tasks_of(slides: Path, out: Path) -> list[SlideTask]:
    """What a job does before the first tile: find the slides and read their facts."""
    return [
        SlideTask(record, ExtractConfig(slides=slides, out=out, grid=GRID))
        for record in take_inventory(slides)
    ]


def read_some(slides: Path, count: int) -> tuple[NDArray[np.uint8], float]:
    """Tiles of the cohort, and the core-seconds that reading one takes."""
    found, seconds = [], 0.0
    for task in tasks_of(slides, slides):
        if sum(map(len, found)) >= count:
            break
        with open_slide(task.slide_path) as slide:
            prepared = prepare_slide(task, slide)
            with TileReader(slide, prepared.grid, prepared.selection) as reader:
                started = time.thread_time()
                found += [batch.pixels for batch in reader.batches(16)]
                seconds += time.thread_time() - started
    pixels = np.concatenate(found)
    return pixels, seconds / len(pixels)


def encode_alone(encoder: Encoder, pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Wall seconds and core-seconds of the encoder on tiles in memory, in one thread a core (CPU)."""
    size = encoder.info.batch_size or 16
    starts = iter(range(0, len(pixels), size))
    lock = threading.Lock()

    def encode() -> None:
        begun = []
        while True:
            with lock:
                start = next(starts, None)
            if start is not None:
                begun.append(encoder.begin(pixels[start : start + size]))
            elif not begun:
                return
            if start is None or len(begun) >= encoder.depth:
                begun.pop(0)()

    threads = [threading.Thread(target=encode) for _ in range(CORES if encoder.concurrent else 1)]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - wall, time.process_time() - cpu


def extract_all(slides: Path, options: EncoderConfig) -> tuple[float, float, int]:
    """Wall seconds and core-seconds of the whole extraction into a fresh folder, and its tiles."""
    with (
        tempfile.TemporaryDirectory(dir=slides.parent) as out,
        open_engine(ExecutionConfig(workers=1), options) as engine,
    ):
        assert engine.encoder.embed_dim  # it is loaded before the time counts
        started, cpu = time.perf_counter(), time.process_time()
        rows = engine.run(tasks_of(slides, Path(out)))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert all(row.status == "done" for row in rows), rows
    return seconds, cpu, sum(row.tiles for row in rows)


class PlainTiles(torch.utils.data.Dataset[torch.Tensor]):
    """The usual dataset: one region a tile, Pillow, torchvision's transform."""

    def __init__(self, slides: Path) -> None:
        self._places: list[tuple[Path, int, int]] = []
        for task in tasks_of(slides, slides):
            with open_slide(task.slide_path) as slide:
                corners = prepare_slide(task, slide).selection.coords.tolist()
            self._places += [(task.slide_path, x, y) for x, y in corners]
        self._open: dict[Path, openslide.OpenSlide] = {}
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        transforms = torchvision.transforms
        steps = [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize(mean, std)]
        self._transform: Callable[[Image.Image], torch.Tensor] = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: int) -> torch.Tensor:
        path, x, y = self._places[place]
        if path not in self._open:
            self._open[path] = openslide.OpenSlide(path)
        tile = self._open[path].read_region((x, y), 0, (2 * TILE_PX, 2 * TILE_PX)).convert("RGB")
        return self._transform(tile.resize((TILE_PX, TILE_PX)))


def plain_loop(dataset: PlainTiles, model: torch.nn.Module, limit: int) -> float:
    """Tiles per second of the usual loop, from the first batch on."""
    torch.set_num_threads(CORES)
    chosen = torch.utils.data.Subset(dataset, range(min(limit, len(dataset))))
    loader = torch.utils.data.DataLoader(chosen, batch_size=32, num_workers=CORES)
    count, started = 0, time.perf_counter()
    with torch.inference_mode():
        for batch in loader:
            count += len(model(batch).half().numpy())
    torch.set_num_threads(1)
    return count / (time.perf_counter() - started)


def cohort(folder: Path, encoder: Encoder, seconds: float, size: tuple[int, int]) -> Path:
    """As many slides as the encoder is busy with for about so long, one at least."""
    sample = np.zeros((32 * CORES, TILE_PX, TILE_PX, 3), np.uint8)
    encode_alone(encoder, sample)  # warms up
    rate = len(sample) / encode_alone(encoder, sample)[0]
    slides = folder / f"slides-{encoder.info.name.replace(':', '_')}"
    slides.mkdir()
    tiles = size[0] * size[1] / (2 * TILE_PX) ** 2 * TISSUE
    for number in range(max(1, round(seconds * rate / tiles))):
        write_slide(slides / f"slide_{number}.svs", number, size)
    return slides


def share_of_encoder(folder: Path, name: str, seconds: float, device: str) -> tuple[float, float, float]:
    """Ratio of extraction and encoder alone, and both rates."""
    options = EncoderConfig(name=name, device=device)
    encoder = load_encoder(options)
    slides = cohort(folder, encoder, seconds, SMALL)
    pixels, _ = read_some(slides, 200)
    # The encoder before and after: a machine that slows down is no advantage to either.
    count = (encoder.info.batch_size or 16) * CORES * 2
    before, _ = encode_alone(encoder, pixels[:count])
    took, _, tiles = extract_all(slides, options)
    after, _ = encode_alone(encoder, pixels[:count])
    alone = 2 * len(pixels[:count]) / (before + after)
    return tiles / took / alone, tiles / took, alone


def share_of_bound(folder: Path, name: str, seconds: float) -> tuple[float, float, float, float, Path]:
    """Ratio of extraction and bound, both rates, and the same ratio in core-seconds a tile."""
    options = EncoderConfig(name=name, device="cpu")
    encoder = load_encoder(options)
    slides = cohort(folder, encoder, seconds / 2, LARGE)
    pixels, reading = read_some(slides, 300)
    _, cpu = encode_alone(encoder, pixels)
    took, spent, tiles = extract_all(slides, options)
    needed = cpu / len(pixels) + reading
    return tiles / took / (CORES / needed), tiles / took, CORES / needed, needed / (spent / tiles), slides


def main() -> None:
    """Measures everything and prints what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="time for the measurements together")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    keep_large_buffers()
    torch.set_num_threads(1)
    others = OtherLoad()
    results: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        share, rate, alone = share_of_encoder(folder, "torchvision:resnet50", arguments.seconds * 0.5, "cpu")
        results |= {
            "share_of_encoder": share,
            "resnet50_tiles_per_s": rate,
            "resnet50_alone_tiles_per_s": alone,
        }
        print(f"share_of_encoder  {share:5.3f}  ({rate:.1f} against {alone:.1f} tiles/s)", flush=True)
        share, rate, bound, cpu_share, slides = share_of_bound(
            folder, "torchvision:squeezenet1_1", arguments.seconds * 0.4
        )
        results |= {"share_of_bound": share, "squeezenet1_1_tiles_per_s": rate, "squeezenet1_1_bound": bound}
        results |= {"cpu_share_of_bound": cpu_share}
        print(f"share_of_bound    {share:5.3f}  ({rate:.1f} against {bound:.1f} tiles/s)", flush=True)
        model = torchvision.models.squeezenet1_1(weights=None).eval()
        plain = plain_loop(PlainTiles(slides), model, int(arguments.seconds * 5))
        results |= {"vs_peer_loop": rate / plain, "peer_loop_tiles_per_s": plain}
        print(f"vs_peer_loop      {rate / plain:5.2f}   ({rate:.1f} against {plain:.1f} tiles/s)", flush=True)
        results["gpu_share_of_encoder"] = None
        if torch.cuda.is_available():
            name = "timm:vit_large_patch16_224"
            share, rate, alone = share_of_encoder(folder, name, arguments.seconds * 0.3, "cuda")
            results |= {"gpu_share_of_encoder": share, "gpu_tiles_per_s": rate}
            print(f"gpu_share         {share:5.3f}  ({rate:.1f} against {alone:.1f} tiles/s)", flush=True)
        else:
            print("gpu_share         not run: there is no CUDA device here", flush=True)
    results["other_load"] = others.share
    if arguments.json:
        print(json.dumps({k: v if v is None else round(v, 3) for k, v in results.items()}))


if __name__ == "__main__":
    main()
