"""Cost of a loss beside cross-entropy on images: a whole training step, and images per second.

    python benchmarks/image_step.py [--seconds 30] [--json]                              # CPU, two networks
    python benchmarks/image_step.py --device cuda --batch-sizes 64 128 256 --compile default --peak-tflops 989

A step is augmentation on the device, forward, loss, backward and SGD, as the loop of ``fit_images`` takes it.
The losses work in turn on the same data; each round gives one ratio (thread CPU time, or time between two
synchronisations of the GPU), and the median counts.

- ``<loss>_over_ce_<network>_<batch>``: the ratio of whole steps. ``reduced`` is the network of the CPU
  benchmark (the loss weighs most there), ``resnet18`` that of CIFAR-100.
- ``images_per_s_<loss>_…``: images of whole steps; ``images_per_s_bare_…``: forward, cross-entropy, backward
  and SGD on one batch that lies ready: what the network allows on this machine.
- ``tflops_…``: floating-point operations of forward and backward per second with cross-entropy, and with
  ``--peak-tflops`` their share of the card's peak.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from wsi_ncmi.core.config import config_from
from wsi_ncmi.losses import build_loss
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.vision import (
    ArrayPart,
    ImageData,
    ImageDataConfig,
    ImageJobConfig,
    NetworkConfig,
    RecipeConfig,
    build_network,
)
from wsi_ncmi.vision.batches import epoch_order
from wsi_ncmi.vision.loop import ImageLoop

NETWORKS = {
    "resnet18": (NetworkConfig(), 100),
    "resnet50": (NetworkConfig(name="resnet50"), 100),
    "reduced": (
        NetworkConfig(stem_stride=2, arguments={"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]}),
        20,
    ),
}
IMAGES = 4096


class Steps:
    """Endless training steps of one loss; ``bare`` leaves out augmentation, schedule and loss options."""

    def __init__(self, network: str, loss: Any, batch_size: int, recipe: RecipeConfig) -> None:
        options, classes = NETWORKS[network]
        self._device, self._size = distributed.resolve_device(recipe.device, "recipe.device"), batch_size
        y = np.arange(IMAGES) % classes
        pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
        part = ArrayPart(pixels, y.astype(np.int64))
        images = ImageData(tuple(map(str, range(classes))), part, None, part)
        data = ImageDataConfig(rotation_deg=0 if network == "reduced" else 15)
        self._net = build_network(options)
        criterion = build_loss(loss, classes, self._net.num_features, [IMAGES // classes] * classes)
        config = ImageJobConfig(data=data, network=options, recipe=recipe)
        self._loop = ImageLoop(self._net, criterion, images, config, seed=0, device=self._device)
        self._net.train()
        criterion.train()
        self._criterion = criterion
        self._stream = self._endless()
        self._fixed = next(self._stream)

    def _endless(self) -> Any:
        epoch = 0
        while True:
            yield from self._loop._train.training(epoch_order(IMAGES, self._size, 0, epoch), 0, epoch, 0)
            epoch += 1

    def whole(self) -> None:
        """One step as the loop takes it."""
        self._loop._take_step(*next(self._stream))

    def bare(self) -> None:
        """Forward, loss, backward and SGD on the batch that lies ready."""
        x, y = self._fixed
        self._loop._optimizer.zero_grad(set_to_none=True)
        self._criterion(self._net(x), y).backward()
        self._loop._optimizer.step()

    def flops(self) -> int:
        """Floating-point operations of forward and backward of a batch."""
        x, _ = self._fixed
        with FlopCounterMode(display=False) as counter:
            z = self._net.forward(x)  # not compiled, so that every operation is seen
            cross_entropy(z, torch.zeros(len(x), dtype=torch.int64, device=x.device)).backward()
        return int(counter.get_total_flops())


def clock(device: torch.device) -> float:
    """Time that a step takes from: the thread's CPU time, or that of the wall once the GPU is idle."""
    if device.type != "cuda":
        return time.thread_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def rounds(
    steps: dict[str, Callable[[], None]], device: torch.device, seconds: float, repeat: int, least: int = 5
) -> dict[str, list[float]]:
    """Seconds of ``repeat`` steps of each kind, in turn and in alternating order."""
    for step in steps.values():
        for _ in range(3 if device.type == "cuda" else 1):
            step()
    spent: dict[str, list[float]] = {name: [] for name in steps}
    end = time.monotonic() + seconds
    while len(next(iter(spent.values()))) < least or time.monotonic() < end:
        order = list(steps.items())
        for name, step in order if len(spent[order[0][0]]) % 2 else reversed(order):
            began = clock(device)
            for _ in range(repeat):
                step()
            spent[name].append(clock(device) - began)
    return spent


def measure(given: argparse.Namespace) -> dict[str, float]:
    """All figures."""
    names = ["ce", *(name for name in given.losses if name != "ce")]
    losses = config_from(ImageJobConfig, {"losses": names}, "--losses").losses
    recipe = RecipeConfig(
        device=given.device, precision=given.precision, compile=given.compile, epochs=100_000
    )
    found: dict[str, float] = {}
    cells = [(name, size) for name in given.networks for size in given.batch_sizes]
    device = distributed.resolve_device(recipe.device, "recipe.device")
    on_gpu = device.type == "cuda"
    for network, size in cells:
        runs = {name: Steps(network, loss, size, recipe) for name, loss in losses.items()}
        kinds: dict[str, Callable[[], None]] = {name: run.whole for name, run in runs.items()}
        kinds["bare"] = runs["ce"].bare
        repeat = given.repeat or (20 if on_gpu else 10 if network == "reduced" else 1)
        spent = rounds(kinds, device, given.seconds / len(cells), repeat)
        cell = f"{network}_{size}"
        for name in [*losses, "bare"]:
            if name not in ("ce", "bare"):
                ratios = [a / b for a, b in zip(spent[name], spent["ce"], strict=True)]
                found[f"{name}_over_ce_{cell}"] = round(statistics.median(ratios), 4)
            per_s = size * repeat / statistics.median(spent[name])
            found[f"images_per_s_{name}_{cell}"] = round(per_s, 1)
        if on_gpu:
            flops = runs["ce"].flops() / size * found[f"images_per_s_ce_{cell}"] / 1e12
            found[f"tflops_{cell}"] = round(flops, 2)
            if given.peak_tflops:
                found[f"share_of_peak_{cell}"] = round(flops / given.peak_tflops, 4)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--losses", nargs="+", default=["ncmi", "ncmi_paper"])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=None)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=None)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default=None)
    parser.add_argument("--compile", default="off")
    parser.add_argument("--repeat", type=int, default=None, help="steps of a round")
    parser.add_argument("--peak-tflops", type=float, default=None)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    on_gpu = given.device == "cuda"
    given.networks = given.networks or (["resnet18"] if on_gpu else ["resnet18", "reduced"])
    given.batch_sizes = given.batch_sizes or ([64, 128, 256] if on_gpu else [16])
    given.precision = given.precision or ("bfloat16" if on_gpu else "float32")
    if not on_gpu:
        torch.set_num_threads(1)
    found = measure(given)
    if not given.json:
        for name, value in found.items():
            print(f"{name:<44} {value}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
