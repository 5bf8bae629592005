"""Ways of computing a network on the CPU: tiles per core-second, and the distance from eager fp32.

    python benchmarks/encoder_paths.py [--encoder NAME] [--weights FILE] [--tiles FOLDER] [--json]

One thread; core-seconds of the process, so that other work on the machine hardly matters. Without ``--tiles``
(a folder of pictures) tiles are noise, and without ``--weights`` weights are random: speeds are the same,
differences are not. ``--backends`` chooses, for example ``torch,onnx``; what is not installed is left out.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import Encoder, EncoderConfig, load_encoder
from wsi_ncmi.parallel import keep_large_buffers

WAYS = {
    "torch": ("torch", "fp32"), "torch-bf16": ("torch", "bf16"), "onnx": ("onnx", "fp32"),
    "openvino": ("openvino", "fp32"), "openvino-bf16": ("openvino", "bf16"), "compile": ("compile", "fp32"),
    "compile-bf16": ("compile", "bf16"),
}  # fmt: skip


def load_tiles(folder: Path | None, count: int) -> NDArray[np.uint8]:
    """Tiles of 224 px."""
    if folder is None:
        return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    pictures = [Image.open(file).convert("RGB").resize((224, 224)) for file in files[:count]]
    return np.stack([np.asarray(picture) for picture in pictures])


def rate(encoder: Encoder, pixels: NDArray[np.uint8], seconds: float) -> float:
    """Tiles per core-second, the median of as many rounds as fit."""
    encoder.encode(pixels)
    spent: list[float] = []
    started = time.monotonic()
    while len(spent) < 3 or time.monotonic() - started < seconds:
        before = time.process_time()
        encoder.encode(pixels)
        spent.append(time.process_time() - before)
    return len(pixels) / statistics.median(spent)


def eager(
    name: str, weights: Path | None, pixels: NDArray[np.uint8], seconds: float
) -> tuple[NDArray[np.float32], float]:
    """Vectors and rate of the network in its own memory layout."""
    encoder = load_encoder(EncoderConfig(name=name, weights=weights, device="cpu", batch_size=len(pixels)))
    network = encoder._network.to(memory_format=torch.contiguous_format)  # type: ignore[attr-defined]
    given = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        vectors = network(given).numpy()
        spent = []
        started = time.monotonic()
        while len(spent) < 3 or time.monotonic() - started < seconds:
            before = time.process_time()
            network(given)
            spent.append(time.process_time() - before)
    return vectors, len(pixels) / statistics.median(spent)


def main() -> None:
    """Measures every way and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="torchvision:resnet50")
    parser.add_argument("--weights", type=Path, default=None)
    parser.add_argument("--tiles", type=Path, default=None)
    parser.add_argument("--backends", default="torch,torch-bf16,onnx,openvino,openvino-bf16")
    parser.add_argument("--seconds", type=float, default=4.0, help="time of each measurement")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pixels = load_tiles(arguments.tiles, 32)
    reference, slow = eager(arguments.encoder, arguments.weights, pixels, arguments.seconds)
    print(f"{'eager, channels first':24s} {slow:7.1f} tiles/core-s")
    results: dict[str, object] = {"encoder": arguments.encoder, "eager": round(slow, 2)}
    keep_large_buffers()
    for way in arguments.backends.split(","):
        backend, precision = WAYS[way]
        try:
            options = {"backend": backend, "precision": precision, "device": "cpu"}
            encoder = load_encoder(
                EncoderConfig(name=arguments.encoder, weights=arguments.weights, **options)  # type: ignore[arg-type]
            )
        except InputError as error:
            print(f"{way:24s} left out: {error}")
            continue
        found = encoder.encode(pixels)
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
        cosine = float(((found * reference).sum(axis=1) / lengths).min())
        furthest = float(np.abs(found - reference).max())
        speed = rate(encoder, pixels, arguments.seconds)
        results[way] = {
            "tiles_per_core_s": round(speed, 2), "factor": round(speed / slow, 2), "cosine": cosine,
            "largest_difference": furthest, "largest_value": float(np.abs(reference).max()),
        }  # fmt: skip
        print(
            f"{way:24s} {speed:7.1f} tiles/core-s  factor {speed / slow:5.2f}  cosine {cosine:.7f}  "
            f"largest difference {furthest:.2g} of {np.abs(reference).max():.3g}",
            flush=True,
        )
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
