"""(b) Extraction: encoders of random weights on a device, what feeds them, and where JPEG is decoded.

A cell ``<model>_alone`` has tiles a second of the network on pixels that lie on the device, and of the
encoder on pixels in memory. ``<model>_threads`` feeds it by threads that decode JPEG tiles, as the pipeline
does, with more and more threads until it has .95 of its rate: ``idle_share`` is what the device then waits.
``<model>_loop`` is the loop that is usual: a DataLoader with processes, Pillow, torchvision's transforms,
the network in half precision. ``<model>_two`` is two such fed processes on the one device. ``nvjpeg`` and
``nvimagecodec`` decode on the device: rate, pixels and vectors against the CPU's. ``<model>_slides`` is the
whole extraction of drawn slides, where the packages that read slides are there.
"""

import gc
import io
import multiprocessing
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_parts.record import Figures, NotHereError, Record, ceilings, rate_of, synchronise
from wsi_ncmi.encoders import Encoder, EncoderConfig, load_encoder
from wsi_ncmi.parallel import available_cores

MODELS = {
    "vit_s": "timm:vit_small_patch16_224",
    "vit_l": "timm:vit_large_patch16_224",
    "vit_h": "timm:vit_huge_patch14_224",
}
SMALL = {"squeezenet": "torchvision:squeezenet1_1"}
TILE_PX = 224
ENOUGH = 0.95


def measure(record: Record, device: torch.device, *, small: bool) -> None:
    """All cells, the encoders from small to large."""
    seconds = 0.02 if small else 4.0
    record.measure("ceilings", partial(ceilings, device, seconds / 8))
    record.measure("nvjpeg", partial(_nvjpeg, device, seconds), needs_s=15)
    record.measure("nvimagecodec", partial(_nvimagecodec, device, seconds), needs_s=15)
    for model, name in (SMALL if small else MODELS).items():
        alone = record.measure(f"{model}_alone", partial(_alone, name, device, seconds), needs_s=25)
        if alone is None:
            continue
        rates = (float(alone["encoder_tiles_s"]), float(alone["device_tiles_s"]))
        record.measure(f"{model}_threads", partial(_by_threads, name, device, seconds, *rates), needs_s=25)
        record.measure(f"{model}_loop", partial(_plain_loop, name, device, seconds), needs_s=20)
        record.measure(f"{model}_slides", partial(_slides, name, device, seconds), needs_s=30)
    if not small:
        record.measure("vit_s_two", partial(_two, MODELS["vit_s"], device, seconds), needs_s=40)


@cache
def jpegs() -> tuple[bytes, ...]:
    """Drawn tiles as JPEG files: soft fields with grain, chroma halved as scanners have it."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(256 if torch.cuda.is_available() else 8):
        pixels = np.zeros((TILE_PX, TILE_PX, 3), np.float32) + np.array([185, 120, 175])
        for edge, weight in ((4, 40), (14, 35), (56, 20)):
            grains = Image.fromarray(rng.normal(0, 1, (edge, edge)).astype(np.float32))
            layer = np.asarray(grains.resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC))
            pixels += weight * layer[:, :, None] * np.array([0.8, 1.0, 0.55])
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
        files.append(file.getvalue())
    return tuple(files)


def _decoder() -> tuple[str, Callable[[bytes], NDArray[np.uint8]]]:
    """A JPEG decoder that lets other threads work meanwhile, and the name of its package."""
    try:
        import simplejpeg
    except ImportError:
        from torchvision.io import ImageReadMode, decode_jpeg

        def decode(data: bytes) -> NDArray[np.uint8]:
            file = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            pixels: NDArray[np.uint8] = decode_jpeg(file, ImageReadMode.RGB).permute(1, 2, 0).numpy()
            return pixels

        return "torchvision", decode
    return "simplejpeg", lambda data: simplejpeg.decode_jpeg(data, "RGB")


@cache
def _encoder(name: str, device: str) -> Encoder:
    return load_encoder(name, device=device)


def _alone(name: str, device: torch.device, seconds: float) -> Figures:
    _encoder.cache_clear()  # the last one's weights make room
    encoder: Any = _encoder(name, device.type)
    size = int(encoder.info.batch_size)
    pixels = np.random.default_rng(0).integers(0, 256, (size, TILE_PX, TILE_PX, 3), dtype=np.uint8)
    on_device = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
    forward = encoder._computes._forward

    @torch.inference_mode()
    def compute() -> int:
        forward(on_device)
        return size

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder._network(on_device[:1])
    flops = counter.get_total_flops()
    on_card = rate_of(compute, device, seconds)

    def batches() -> Iterator[NDArray[np.uint8]]:
        while True:
            yield pixels

    rate, _ = _encode(encoder, batches(), seconds)
    return {
        "batch": size, "precision": encoder.info.precision, "gflop_per_tile": flops / 1e9,
        "device_tiles_s": on_card, "tflops": on_card * flops / 1e12,
        "encoder_tiles_s": rate, "share_of_device": rate / on_card,
    }  # fmt: skip


def _encode(encoder: Encoder, batches: Iterator[NDArray[np.uint8]], seconds: float) -> tuple[float, float]:
    """Tiles a second of an encoder with as many batches in flight as it takes, and when that began."""
    begun: list[tuple[int, Callable[[], object]]] = []
    for _ in range(3):
        encoder.begin(next(batches))()
    began = time.perf_counter()
    count = 0
    while time.perf_counter() - began < seconds:
        pixels = next(batches)
        begun.append((len(pixels), encoder.begin(pixels)))
        if len(begun) >= encoder.depth:
            tiles, result = begun.pop(0)
            result()
            count += tiles
    for tiles, result in begun:
        result()
        count += tiles
    return count / (time.perf_counter() - began), began


class _Feed:
    """Threads that decode tiles into batches, at most two batches ahead a thread."""

    def __init__(self, size: int, threads: int) -> None:
        self._size, (_, self._decode) = size, _decoder()
        self._ready: queue.Queue[NDArray[np.uint8]] = queue.Queue(maxsize=max(4, threads))
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        files = jpegs()
        while not self._over.is_set():
            batch = np.empty((self._size, TILE_PX, TILE_PX, 3), np.uint8)
            for i in range(self._size):
                batch[i] = self._decode(files[i % len(files)])
            while not self._over.is_set():
                try:
                    self._ready.put(batch, timeout=0.1)
                    break
                except queue.Full:
                    continue

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return self

    def __next__(self) -> NDArray[np.uint8]:
        return self._ready.get(timeout=120)

    def close(self) -> None:
        """Ends the threads."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def _fed(encoder: Encoder, threads: int, seconds: float) -> float:
    feed = _Feed(int(encoder.info.batch_size or 16), threads)
    try:
        return _encode(encoder, feed, seconds)[0]
    finally:
        feed.close()


def _by_threads(
    name: str, device: torch.device, seconds: float, encoder_rate: float, device_rate: float
) -> Figures:
    encoder = _encoder(name, device.type)
    jpegs()
    counts = [count for count in (1, 2, 4, 8, 16, 32) if count <= available_cores()]
    rates: dict[int, float] = {}
    for count in counts:
        rates[count] = _fed(encoder, count, seconds / 2)
        if rates[count] >= ENOUGH * encoder_rate:
            break
    best = max(rates, key=rates.__getitem__)
    return {
        "decoder": _decoder()[0], "tiles_s_by_threads": {str(k): round(v, 1) for k, v in rates.items()},
        "threads": best, "tiles_s": rates[best], "share_of_encoder": rates[best] / encoder_rate,
        "idle_share": max(0.0, 1 - rates[best] / device_rate),
    }  # fmt: skip


class _Tiles(torch.utils.data.Dataset[Tensor]):
    """The usual dataset: Pillow, ToTensor, Normalize."""

    def __init__(self, files: Sequence[bytes], count: int) -> None:
        from torchvision import transforms

        self._files, self._count = files, count
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self._transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> Tensor:
        picture = Image.open(io.BytesIO(self._files[place % len(self._files)])).convert("RGB")
        tile: Tensor = self._transform(picture)
        return tile


def _loader_processes(batch_bytes: int, shared_bytes: int) -> int:
    """A process a core, or as many whose batches fit into shared memory: Docker's is 64 MiB."""
    # Each has two batches ready and makes a third.
    count = min(16, available_cores(), shared_bytes // (3 * batch_bytes))
    if count < 1:
        raise NotHereError(
            f"shared memory of {shared_bytes >> 20} MiB holds no batches of a DataLoader; give a container "
            "more (docker run --ipc=host)"
        )
    return count


def _plain_loop(name: str, device: torch.device, seconds: float) -> Figures:
    """Tiles a second of the usual loop, from its second batch on, a process a core."""
    model = _encoder(name, device.type)._network.model  # type: ignore[attr-defined]
    on_gpu = device.type == "cuda"
    size = 64 if on_gpu else 4
    workers = (
        _loader_processes(size * TILE_PX**2 * 3 * 4, shutil.disk_usage("/dev/shm").free) if on_gpu else 0
    )
    loader = torch.utils.data.DataLoader(
        _Tiles(jpegs(), 10**6), batch_size=size, num_workers=workers, pin_memory=on_gpu
    )
    count, began = 0, 0.0
    with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=on_gpu):
        for batch in loader:
            features = model(batch.to(device, non_blocking=True)).float().cpu().numpy()
            if not began:
                began = time.perf_counter()
                continue
            count += len(features)
            if time.perf_counter() - began >= seconds:
                break
    return {"processes": workers, "tiles_s": count / (time.perf_counter() - began)}


def _slides(name: str, device: torch.device, seconds: float) -> Figures:
    """Whole extraction of drawn slides, tissue and publishing included."""
    try:
        from benchmarks import extraction
    except ImportError as error:
        raise NotHereError(f"{error}; --wheels FOLDER gives what reads slides") from error
    options = EncoderConfig(name=name, device=device.type)  # type: ignore[arg-type]
    size, count = (extraction.SMALL, 1) if device.type == "cpu" else (extraction.LARGE, 12)
    with tempfile.TemporaryDirectory() as folder:
        slides = Path(folder) / "slides"
        slides.mkdir()
        for number in range(count):
            extraction.write_slide(slides / f"slide_{number}.svs", number, size)
        took, cpu, tiles = extraction.extract_all(slides, options)
    return {"slides": count, "tiles": tiles, "tiles_s": tiles / took, "cores_used": cpu / took}


def _two(name: str, device: torch.device, seconds: float) -> Figures:
    """Tiles a second of two processes, each with half of the cores, on the one device."""
    threads = max(1, available_cores() // 2)
    _encoder.cache_clear()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what this process keeps is missing to the two
    task = (name, device.type, threads, seconds)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    with context.Pool(2, _hold, (barrier,)) as pool:
        rates = pool.map(_fed_there, [task] * 2, chunksize=1)
    return {"threads_each": threads, "tiles_s": sum(rates), "tiles_s_each": [round(r, 1) for r in rates]}


_barrier: Any = None


def _hold(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _fed_there(task: tuple[str, str, int, float]) -> float:
    name, device, threads, seconds = task
    encoder = _encoder(name, device)
    jpegs()
    _barrier.wait(timeout=120)
    return _fed(encoder, threads, seconds)


def _nvjpeg(device: torch.device, seconds: float) -> Figures:
    """NvJPEG through torchvision; on the CPU its own decoder, so that the cell runs."""
    from torchvision.io import ImageReadMode, decode_jpeg

    files = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in jpegs()]

    def decode() -> list[Tensor]:
        tiles: list[Tensor] = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
        return tiles

    try:
        decode()
    except RuntimeError as error:
        if "not compiled with" in str(error):
            raise NotHereError("this torchvision was built without nvJPEG") from error
        raise
    return _on_device(decode, device, seconds)


def _nvimagecodec(device: torch.device, seconds: float) -> Figures:
    if device.type != "cuda":
        raise NotHereError("nvImageCodec needs a GPU, also for what it decodes on the CPU")
    try:
        from nvidia import nvimgcodec
    except ImportError as error:
        raise NotHereError("nvImageCodec isn't installed (nvidia-nvimgcodec)") from error
    decoder = nvimgcodec.Decoder()
    files = list(jpegs())
    return _on_device(
        lambda: [torch.as_tensor(tile, device=device).permute(2, 0, 1) for tile in decoder.decode(files)],
        device, seconds,
    )  # fmt: skip


def _on_device(decode: Callable[[], list[Tensor]], device: torch.device, seconds: float) -> Figures:
    """Rate of a decoder, and its pixels and vectors against those of the CPU's decoder."""
    name, one = _decoder()
    began = synchronise(torch.device("cpu"))
    expected = np.stack([one(data) for data in jpegs()])
    on_cpu = len(expected) / (time.perf_counter() - began)
    found = torch.stack(decode()).permute(0, 2, 3, 1).cpu().numpy()
    apart = np.abs(found.astype(np.int16) - expected.astype(np.int16))
    encoder = _encoder(next(iter(SMALL.values())), device.type)
    a, b = encoder.encode(found[:16]), encoder.encode(expected[:16])
    cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return {
        "tiles_s": rate_of(lambda: len(decode()), device, seconds / 2),
        "cpu_decoder": name, "cpu_tiles_s_of_a_core": on_cpu,
        "levels_apart_mean": float(apart.mean()), "levels_apart_99.9": float(np.percentile(apart, 99.9)),
        "levels_apart_most": int(apart.max()), "cosine_least": float(cosine.min()),
    }  # fmt: skip
