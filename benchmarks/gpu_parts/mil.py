"""(c) Training of aggregators on large bags: our loop, the peers' loop, and the limit of the device.

Bags of 10,000 × 1,024 float16 (16 of them). The peers' loop reads a file a bag (``torch.load``, as CLAM
does), casts it to float32, and takes an Adam step a bag; for gated ABMIL with their model (two linear
layers for the branches, see ``benchmarks/training.py``), for the others with ours. Ours is the loop of
``train``; it keeps the bags in memory. Both are measured in float32 and in bfloat16, epochs in turn.

``share_of_limit`` is the device's limit over our epoch: the longest of the time for the operations of
forward and backward at the measured rate of matrix products, for reading the bags twice at the measured
rate of copies, and for bringing them to the device at the measured rate from pinned memory.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_parts.record import Figures, Record, ceilings, synchronise
from benchmarks.training import PlainGatedABMIL, save_bags
from wsi_ncmi.encoders.base import is_out_of_memory
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import BagBatch, model_config
from wsi_ncmi.training import BagCache, LabelledSlides, RunConfig, TrainingConfig
from wsi_ncmi.training.fitting import build_modules
from wsi_ncmi.training.loop import TrainingLoop

SETTINGS: dict[str, dict[str, Any]] = {
    "abmil": {"hidden": 128, "attention": 64, "dropout": 0.25},  # those of the peers' model
    "transmil": {},
    "vit": {},
}


def measure(record: Record, device: torch.device, *, small: bool) -> None:
    """A cell a model."""
    bags, tiles, width, epochs = (2, 12, 32, 1) if small else (16, 10_000, 1024, 3)
    limits = record.measure("ceilings", partial(ceilings, device, 0.002 if small else 0.5))
    if limits is None:
        return
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal((tiles, width), np.float32).astype(np.float16) for _ in range(bags)]
    with tempfile.TemporaryDirectory() as folder:
        data = save_bags(Path(folder), drawn, np.arange(bags) % 2)
        for name in SETTINGS:
            record.measure(name, partial(_compared, name, data, device, limits, epochs), needs_s=20)


def _compared(
    name: str,
    data: tuple[list[Path], BagCache, LabelledSlides],
    device: torch.device,
    limits: Figures,
    epochs: int,
) -> Figures:
    files, cache, slides = data
    found: dict[str, Any] = {}
    for precision in ("fp32", "bf16"):
        ours, batch = _our_epoch_that_fits(name, cache, slides, device, precision)
        peers = _peers_epoch(name, files, slides.y, cache.source.width, device, precision)
        pairs = [(ours(), peers()) for _ in range(epochs + 1)][1:]
        mine, theirs = np.median([pair[0] for pair in pairs]), np.median([pair[1] for pair in pairs])
        rows = int(sum(cache.lengths(slides.slide_ids)))
        width = cache.source.width
        needed = {
            "products": _flops(name, cache, slides, device) / (limits[f"{precision}_tflops"] * 1e12),
            "memory": 2 * rows * width * (4 if precision == "fp32" else 2) / (limits["copy_gb_s"] * 1e9),
            "upload": rows * width * 2 / (limits["upload_gb_s"] * 1e9),
        }
        bound = max(needed, key=needed.__getitem__)
        found |= {
            f"{precision}_bags_a_step": batch, f"{precision}_epoch_s": float(mine),
            f"{precision}_peers_epoch_s": float(theirs),
            f"{precision}_vs_peers": float(np.median([b / a for a, b in pairs])),
            f"{precision}_share_of_limit": float(needed[bound] / mine), f"{precision}_limit": bound,
        }  # fmt: skip
    return found


def _run_config(name: str, device: torch.device, precision: str, batch_size: int = 1) -> RunConfig:
    settings = SETTINGS.get(name, {})
    return RunConfig(
        model=model_config(name, **settings),
        loss=loss_config(name="ce"),
        training=TrainingConfig(device=device.type, precision=precision, epochs=1000, batch_size=batch_size),
    )


def _our_epoch_that_fits(
    name: str, cache: BagCache, slides: LabelledSlides, device: torch.device, precision: str
) -> tuple[Callable[[], float], int]:
    """Our epoch with the default's 16 bags a step, or with fewer where memory holds no more."""
    for size in (16, 4, 1):
        try:
            epoch = _our_epoch(name, cache, slides, device, precision, size)
            epoch()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
        else:
            return epoch, size
    raise MemoryError("not even one bag fits the device")


def _our_epoch(
    name: str, cache: BagCache, slides: LabelledSlides, device: torch.device, precision: str, size: int
) -> Callable[[], float]:
    config = _run_config(name, device, precision, size)
    aggregator, criterion = build_modules(config, cache.source.width, np.bincount(slides.y).tolist())
    cache.with_coordinates = aggregator.needs_coordinates
    loop = TrainingLoop(
        aggregator.to(device), criterion.to(device), cache, train=slides, validation=slides, config=config
    )
    aggregator.train()
    criterion.train()

    def epoch() -> float:
        began = synchronise(device)
        loop._take_steps()
        elapsed = synchronise(device) - began
        loop._epoch, loop._step, loop._loss_sum = loop._epoch + 1, 0, 0.0
        return elapsed

    return epoch


class _OurModel(nn.Module):
    """An aggregator of ours with a linear classifier, for the peers' loop."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        config = _run_config(name, torch.device("cpu"), "fp32")
        self.aggregator, _ = build_modules(config, width, [1, 1])
        self.head = nn.Linear(self.aggregator.embedding_width, 2)

    def forward(self, bag: Tensor) -> Tensor:
        """Logits (1, 2) of a bag (N, D)."""
        logits: Tensor = self.head(self.aggregator(BagBatch.pack([bag])).embedding)
        return logits


def _peers_epoch(
    name: str, files: Sequence[Path], y: np.ndarray, width: int, device: torch.device, precision: str
) -> Callable[[], float]:
    model = PlainGatedABMIL(width, 2) if name == "abmil" else _OurModel(name, width)
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=1e-5)
    labels = torch.from_numpy(y).to(device)

    def epoch() -> float:
        began, total = synchronise(device), 0.0
        for i in torch.randperm(len(files)).tolist():
            bag = torch.load(files[i], weights_only=True).float().to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = model(bag)
            loss = nn.functional.cross_entropy(logits.float(), labels[i : i + 1])
            total += loss.item()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return synchronise(device) - began

    return epoch


def _flops(name: str, cache: BagCache, slides: LabelledSlides, device: torch.device) -> float:
    """Operations of forward and backward of all bags; bags have one length."""
    model = _OurModel(name, cache.source.width).to(device)
    bag = torch.from_numpy(cache.source.load(slides.slide_ids[0])).float().to(device)
    with FlopCounterMode(display=False) as counter:
        model(bag).sum().backward()
    return float(counter.get_total_flops()) * len(slides.slide_ids)
