"""Checks of all that runs on a GPU, against the CPU; ``benchmarks/gpu.py`` makes them too."""

import contextlib
import copy
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsi_ncmi.cohorts import BagSource
from wsi_ncmi.doctor.compute import hushed
from wsi_ncmi.doctor.finding import Finding
from wsi_ncmi.encoders import Encoder, load_encoder
from wsi_ncmi.encoders.torch_backend import resized_on_device
from wsi_ncmi.losses import PRESETS, build_loss, list_losses, loss_config
from wsi_ncmi.mil import BagBatch, build_aggregator, list_models
from wsi_ncmi.parallel.gpus import visible_gpus
from wsi_ncmi.training import BagCache, LabelledSlides, RunConfig, TrainingConfig, fit_in_memory, read_resume
from wsi_ncmi.vision import (
    ArrayPart,
    ImageData,
    ImageDataConfig,
    ImageJobConfig,
    NetworkConfig,
    RecipeConfig,
    build_network,
)
from wsi_ncmi.vision.loop import ImageLoop

_NETWORK = "torchvision:resnet18"
_INPUT_PX = 224
_BATCH = 8
_SPARE = 1 << 30
_TOO_LARGE = 1024
_REMEDY = "Use --device cpu until a newer driver, torch or version of this program has it right."


def examine_gpu() -> Iterator[Finding]:
    """Checks the first GPU, in under a minute."""
    if not torch.cuda.is_available():
        yield Finding(
            "gpu",
            "fail",
            "torch sees no GPU on this machine, so nothing can be checked",
            "Run it where one is; wsi-ncmi doctor tells what torch and the driver lack.",
        )
        return
    with hushed("wsi_ncmi.encoders"):
        yield from findings_of(torch.device("cuda"))


def findings_of(device: torch.device) -> Iterator[Finding]:
    """A finding a check; one that breaks doesn't stop the others."""
    for name, check in CHECKS.items():
        began = time.perf_counter()
        try:
            detail = check(device)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            yield Finding(f"gpu {name}", "fail", reason, _REMEDY)
        else:
            yield Finding(f"gpu {name}", "ok", f"{detail} ({time.perf_counter() - began:.1f} s)")


def _encoding(device: torch.device) -> str:
    """An encoder's vectors in each precision are those of the CPU."""
    expected = _encoder("cpu", "fp32").encode(_tiles())
    worst = {}
    for precision, least in (("fp32", 0.9999), ("bf16", 0.99), ("fp16", 0.999)):
        if precision == "fp16" and device.type == "cpu":
            continue
        found = _encoder(device.type, precision).encode(_tiles())
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        worst[precision] = float(((found * expected).sum(axis=1) / lengths).min())
        if not worst[precision] >= least:
            raise ValueError(
                f"vectors of {precision} have a cosine of {worst[precision]:.5f} to those of the CPU"
            )
    return "cosine to the CPU: " + ", ".join(f"{name} {value:.6f}" for name, value in worst.items())


def _resizing(device: torch.device) -> str:
    """Tiles resized on the device are those resized on the CPU, to one level."""
    pixels = torch.from_numpy(_tiles()).permute(0, 3, 1, 2)
    worst = 0
    for interpolation in ("bilinear", "bicubic"):
        expected = resized_on_device(pixels, _INPUT_PX, interpolation).short()
        found = resized_on_device(pixels.to(device), _INPUT_PX, interpolation).cpu().short()
        worst = max(worst, int((found - expected).abs().max()))
    if worst > 1:
        raise ValueError(f"pixels differ by up to {worst} grey levels")
    return f"pixels differ by at most {worst} grey level"


def _streaming(device: torch.device) -> str:
    """Batches that are begun before earlier ones are taken come back in order and unmixed."""
    encoder = _encoder(device.type, "fp32")
    batches = [np.roll(_tiles(), shift, axis=2) for shift in range(6)]
    begun = [encoder.begin(batch) for batch in batches]
    for batch, result in zip(batches, begun, strict=True):
        _compare(
            "a batch in flight", torch.from_numpy(result()), torch.from_numpy(encoder.encode(batch)), 1e-3
        )
    return f"{len(batches)} batches of {_BATCH} tiles in flight"


def _memory(device: torch.device) -> str:
    """The search for a batch size ends below what memory holds, and a batch that is too large is halved."""
    # A CPU's memory isn't limited here, and so many tiles would take it a minute.
    count = _TOO_LARGE if device.type == "cuda" else min(_TOO_LARGE, 2 * _BATCH)
    with _little_memory(device):
        found = _encoder(device.type, "auto", "auto").info.batch_size
        encoder = _encoder(device.type, "auto", count)
        tiles = np.broadcast_to(_tiles()[:1], (count, 256, 256, 3))
        features = encoder.encode(tiles)
        _compare("a halved batch", torch.from_numpy(features[-1:]), torch.from_numpy(features[:1]), 1e-3)
    if device.type == "cuda" and not encoder.remark:
        raise ValueError(f"a batch of {count} tiles ran in {_SPARE >> 20} MiB; nothing had to be halved")
    return f"batch {found} found in {_SPARE >> 20} MiB; {encoder.remark or 'nothing had to be halved'}"


@contextlib.contextmanager
def _little_memory(device: torch.device) -> Iterator[None]:
    """Leaves this process 1 GiB of a GPU's memory beyond what it has."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(
        min(1.0, (torch.cuda.memory_reserved(device) + _SPARE) / total), torch.cuda.current_device()
    )
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, torch.cuda.current_device())
        torch.cuda.empty_cache()


def _models(device: torch.device) -> str:
    """Every aggregator gives the CPU's embeddings, and finite gradients in bfloat16."""
    draw = torch.Generator().manual_seed(0)
    bags = [torch.randn(count, 64, generator=draw) for count in (300, 40, 1)]
    batch = BagBatch.pack(bags, [torch.randint(0, 30, (len(bag), 2), generator=draw) for bag in bags])
    y, worst, kinds = torch.arange(3, device=device), 0.0, list_models()
    for kind in kinds:
        torch.manual_seed(0)
        model = build_aggregator(kind(), 64, 3).eval()  # type: ignore[call-arg]
        expected = model(batch).embedding
        model = copy.deepcopy(model).to(device)
        name = model.__class__.__name__
        worst = max(worst, _compare(name, model(batch.to(device)).embedding, expected, 1e-2))
        model.train()
        with torch.autocast(device.type, torch.bfloat16):
            output = model(batch.to(device), y)
        loss: Tensor = output.embedding.float().square().mean() + sum(output.auxiliary.values())
        if loss.requires_grad:  # pooling alone has no weights
            loss.backward()  # type: ignore[no-untyped-call]
        _finite(name, model)
    return f"{len(kinds)} aggregators, largest relative difference {worst:.1e}"


def _losses(device: torch.device) -> str:
    """Every loss has the CPU's value, gradient and decision."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 5
    points = torch.randn(60, 32, generator=draw) + 2 * torch.randn(5, 32, generator=draw)[y]
    configs = [kind() for kind in list_losses()]  # type: ignore[call-arg]
    configs += [loss_config(preset=preset) for preset in PRESETS if preset != "default"]
    worst = 0.0
    for config in configs:
        seen = []
        for place in (torch.device("cpu"), device):
            torch.manual_seed(0)
            criterion = build_loss(config, 5, 32, [12] * 5).to(place)
            z, labels = points.to(place, copy=True).requires_grad_(), y.to(place)
            value: Tensor = criterion(z, labels)
            value.backward()  # type: ignore[no-untyped-call]
            criterion.end_epoch(z.detach(), labels)
            criterion.fit_decision(z.detach(), labels)
            assert z.grad is not None
            seen.append(
                (value.detach().cpu(), z.grad.cpu(), criterion.eval().predict_proba(z).detach().cpu())
            )
        for found, expected in zip(seen[1], seen[0], strict=True):
            worst = max(worst, _compare(f"the loss {config.name}", found, expected, 2e-2))
    return f"{len(configs)} losses, largest relative difference {worst:.1e}"


def _training(device: torch.device) -> str:
    """A small training ends with the classes told apart, in each precision."""
    rng = np.random.default_rng(0)
    y = np.arange(36) % 3
    names = tuple(f"slide_{i}" for i in range(36))
    lengths = rng.integers(20, 60, 36)
    bags = {
        name: (rng.normal(size=(length, 32)) + 2 * np.eye(3, 32)[label]).astype(np.float16)
        for name, length, label in zip(names, lengths.tolist(), y.tolist(), strict=True)
    }
    source = SimpleNamespace(
        slide_ids=names, lengths=lengths, width=32, encoder="", path=Path("bags"), load=bags.__getitem__
    )
    cache = BagCache(cast("BagSource", source), 1 << 28)
    found = {}
    for precision in ("fp32", "bf16", "fp16"):
        if precision == "fp16" and device.type == "cpu":
            continue
        options = TrainingConfig(
            epochs=8, batch_size=6, learning_rate=2e-3, device=_name(device), precision=precision
        )
        fitted = fit_in_memory(
            cache, LabelledSlides(names[:24], y[:24]), LabelledSlides(names[24:], y[24:]), 3,
            RunConfig(training=options),
        )  # fmt: skip
        found[precision] = max(row["val_macro_f1"] for row in fitted.curves)
        if not found[precision] > 0.9:
            raise ValueError(f"training in {precision} reached a macro-F1 of {found[precision]:.2f} only")
    return "macro-F1 " + ", ".join(f"{name} {value:.2f}" for name, value in found.items())


def _images(device: torch.device) -> str:
    """A network trained in bfloat16 learns, and a run that was stopped goes on as if it hadn't been."""
    rng = np.random.default_rng(0)
    y = np.arange(192) % 4
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60]])[y]
    pixels = (colours[:, None, None] + rng.integers(0, 56, (192, 16, 16, 3))).astype(np.uint8)
    part = ArrayPart(pixels, y.astype(np.int64))
    data = ImageData(("a", "b", "c", "d"), part, None, part)
    config = ImageJobConfig(
        data=ImageDataConfig(rotation_deg=15),
        network=NetworkConfig(stem_stride=2, arguments={"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64]}),
        recipe=RecipeConfig(
            epochs=8, batch_size=32, learning_rate=0.05, evaluate_every=8, device=_name(device),
            precision="bfloat16",
        ),
    )  # fmt: skip

    def loop(folder: Path | None) -> ImageLoop:
        torch.manual_seed(0)
        network = build_network(config.network)
        criterion = build_loss("ncmi", 4, 64, [48] * 4)
        return ImageLoop(network, criterion, data, config, seed=0, device=device, folder=folder)

    whole = loop(None)
    whole.run()
    with tempfile.TemporaryDirectory() as folder:
        loop(Path(folder)).run(until=time.monotonic())
        saved = read_resume(Path(folder))
    assert saved is not None
    resumed = loop(None)
    resumed.load_state_dict(saved[1])
    resumed.run()
    ends = [float(each.curves[-1]["train_loss"]) for each in (whole, resumed)]
    top1 = float(resumed.curves[-1]["top1"])
    if not (abs(ends[1] - ends[0]) <= 0.05 * abs(ends[0]) + 0.01 and top1 > 0.9):
        raise ValueError(f"last loss {ends[0]:.4f}, {ends[1]:.4f} after a resume; top-1 {top1:.2f}")
    return f"top-1 {top1:.2f}, last loss {ends[0]:.4f}, {ends[1]:.4f} after a resume"


def _slices(device: torch.device) -> str:
    """The devices that workers share out are those of torch, or the slices of divided cards."""
    names = visible_gpus()
    divided = [name for name in names if name.startswith("MIG-")]
    if device.type == "cuda" and not divided and len(names) != torch.cuda.device_count():
        raise ValueError(f"torch sees {torch.cuda.device_count()} devices, the workers would get {names}")
    return f"{len(names)} devices, {len(divided)} of them slices"


def _processes(device: torch.device) -> str:
    """Two processes at once on the one device give what one gives."""
    settings = (_NETWORK, device.type, _INPUT_PX)
    expected = torch.from_numpy(_encoded(settings))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for found in pool.map(_encoded, [settings] * 2, chunksize=1):
            _compare("a process beside another", torch.from_numpy(found), expected, 1e-3)
    return "2 processes, equal vectors"


def _collectives(device: torch.device) -> str:
    """The messages that processes of torchrun exchange (NCCL on a GPU), and torch's own DDP on top."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            flat = torch.arange(8.0, device=device)
            gathered = [torch.empty_like(flat)]
            held = ["told"]
            objects: list[Any] = [None]
            dist.all_reduce(flat)
            dist.broadcast(flat, 0)
            dist.all_gather(gathered, flat)
            dist.broadcast_object_list(held, 0)
            dist.all_gather_object(objects, flat.cpu())
            _compare("a gathered tensor", gathered[0], torch.arange(8.0), 0.0)
            model = DistributedDataParallel(nn.Linear(8, 4).to(device))
            model(flat.unsqueeze(0)).sum().backward()
            _finite("DistributedDataParallel", model)
        finally:
            dist.destroy_process_group()
    return f"{backend}: sum, broadcast, gather, objects, DistributedDataParallel"


CHECKS: dict[str, Callable[[torch.device], str]] = {
    "encoding": _encoding,
    "resizing": _resizing,
    "streaming": _streaming,
    "memory": _memory,
    "models": _models,
    "losses": _losses,
    "training": _training,
    "images": _images,
    "slices": _slices,
    "processes": _processes,
    "collectives": _collectives,
}


def _name(device: torch.device) -> Literal["cpu", "cuda"]:
    return "cuda" if device.type == "cuda" else "cpu"


@cache
def _tiles() -> NDArray[np.uint8]:
    """Smooth pictures of 256 px: a resize of noise would show the rounding of every tap."""
    coarse = torch.rand(_BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, size=256, mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _encoder(device: str, precision: str, batch_size: int | str = _BATCH) -> Encoder:
    return load_encoder(
        _NETWORK, device=device, precision=precision, batch_size=batch_size, input_px=_INPUT_PX
    )


def _encoded(settings: tuple[str, str, int]) -> NDArray[np.float32]:
    name, device, input_px = settings
    with hushed("wsi_ncmi.encoders"):  # another process has loggers of its own
        encoder = load_encoder(name, device=device, precision="fp32", batch_size=_BATCH, input_px=input_px)
    return encoder.encode(_tiles())


def _compare(what: str, found: Tensor, expected: Tensor, most: float) -> float:
    """The largest difference relative to the largest value; ``ValueError`` above ``most``, and for NaN."""
    a, b = found.detach().double().cpu(), expected.detach().double().cpu()
    difference = float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
    if not difference <= most:
        raise ValueError(f"{what} differs by {difference:.1e} of the largest value (at most {most:.0e})")
    return difference


def _finite(name: str, module: nn.Module) -> None:
    for key, parameter in module.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            raise ValueError(f"the gradient of {name}'s {key} isn't finite")
