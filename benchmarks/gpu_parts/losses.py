"""(d) Cost of a step of NCMI beside cross-entropy: ResNet-18 and -50 on 32 px images, gated ABMIL on bags.

Steps of both losses take turns on the same data (``benchmarks/image_step.py``); the median of the paired
ratios counts. An image's step is augmentation, forward, loss, backward and SGD, as ``fit_images`` takes it.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch

from benchmarks import image_step
from benchmarks.gpu_parts.record import Figures, Record
from wsi_ncmi.losses import build_loss
from wsi_ncmi.mil import BagBatch, build_aggregator, model_config


def measure(record: Record, device: torch.device, *, small: bool) -> None:
    """A cell a network and a size of bags."""
    seconds = 0.02 if small else 8.0
    for network in ("reduced",) if small else ("resnet18", "resnet50"):
        for size in (4,) if small else (128,):
            cell = partial(_images, network, size, device, seconds)
            record.measure(f"{network}_{size}", cell, needs_s=12)
    for bags, tiles, width in ((4, 20, 32),) if small else ((16, 200, 192), (4, 10_000, 1024)):
        cell = partial(_bags, bags, tiles, width, device, seconds)
        record.measure(f"abmil_{bags}x{tiles}x{width}", cell, needs_s=12)


def _images(network: str, size: int, device: torch.device, seconds: float) -> Figures:
    precision = "bfloat16" if device.type == "cuda" else "float32"
    found = image_step.measure(
        argparse.Namespace(
            losses=["ncmi", "ncmi_paper"], networks=[network], batch_sizes=[size], device=device.type,
            precision=precision, compile="off", seconds=seconds, peak_tflops=None,
            repeat=None if device.type == "cuda" else 1,
        )
    )  # fmt: skip
    return {
        "precision": precision,
        **{name.removesuffix(f"_{network}_{size}"): v for name, v in found.items()},
    }


def _bags(bags: int, tiles: int, width: int, device: torch.device, seconds: float) -> Figures:
    draw = torch.Generator().manual_seed(0)
    batch = BagBatch.pack([torch.randn(tiles, width, generator=draw) for _ in range(bags)]).to(device)
    y = (torch.arange(bags) % 3).to(device)

    def step_of(loss: str) -> Callable[[], None]:
        torch.manual_seed(0)
        model = build_aggregator(model_config(), width, 3).to(device)
        criterion = build_loss(loss, 3, model.embedding_width, [1, 1, 1]).to(device)
        optimizer = torch.optim.AdamW([*model.parameters(), *criterion.parameters()], lr=1e-4, fused=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16):
                z = model(batch).embedding
                value = criterion(z, y)
            value.backward()
            optimizer.step()

        return step

    steps = {"ncmi": step_of("ncmi"), "ce": step_of("ce")}
    repeat = 20 if device.type == "cuda" else 1
    spent = image_step.rounds(steps, device, seconds, repeat)
    ratios = [a / b for a, b in zip(spent["ncmi"], spent["ce"], strict=True)]
    return {
        "ncmi_over_ce": statistics.median(ratios),
        "rounds": len(ratios),
        "quartiles": [round(q, 4) for q in statistics.quantiles(ratios, n=4)[::2]],
        "ce_step_s": statistics.median(spent["ce"]) / repeat,
    }
