"""torch, its CUDA against the driver, the GPUs, and what one of them or the CPU encodes in a few seconds."""

import contextlib
import ctypes
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from wsi_ncmi.doctor.finding import DoctorConfig, Finding
from wsi_ncmi.encoders import EncoderConfig

_MIN_FREE = 4 << 30
_PROBE = "torchvision:resnet50"
_DRIVER = Path("/proc/driver/nvidia/version")


def torch(_: DoctorConfig) -> Iterator[Finding]:
    """Its version, and whether the driver can run the CUDA that it was built for."""
    import torch

    built = torch.version.cuda
    driver = driver_cuda()
    what = f"{torch.__version__}, built for CUDA {built or '–'}, driver for {driver or 'no CUDA'}"
    if built and driver and not matches(built, driver):
        yield Finding("torch", "fail", what, f"Update the driver to one for CUDA {built} or newer.")
    elif driver and not built:
        yield Finding("torch", "warn", what, "There is a GPU driver, and this torch is for the CPU only.")
    else:
        yield Finding("torch", "ok", what)


def driver_cuda() -> str:
    """The newest CUDA that the driver can run, such as ``12.4``; empty without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        number = ctypes.c_int(0)
        if library.cuDriverGetVersion(ctypes.byref(number)):
            return ""
    except (OSError, AttributeError):
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}" if number.value else ""


def matches(built: str, driver: str) -> bool:
    """A driver runs programs of a CUDA version: any minor version of its own major one, or older."""
    return int(built.split(".")[0]) <= int(driver.split(".")[0])


def gpus(_: DoctorConfig) -> Iterator[Finding]:
    """Each GPU's memory and whether torch has code for it."""
    import torch

    from wsi_ncmi.parallel.gpus import visible_gpus

    if not torch.cuda.is_available():
        driver = _DRIVER.exists()
        yield Finding(
            "gpu",
            "warn",
            "a driver is loaded but torch sees no device" if driver else "none; everything runs on the CPU",
            "Pass the GPU on (docker run --gpus all), or update the driver; see the line on torch."
            if driver
            else "Fine for the descriptor and for training; large encoders want a GPU.",
        )
        return
    known = set(torch.cuda.get_arch_list())
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        detail = f"{card.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        remedy = ""
        if free < _MIN_FREE:
            remedy = "Other programs use its memory; batches will be small, or the encoder will not fit."
        if known and not any(arch.startswith(f"sm_{card.major}") for arch in known):
            remedy = f"torch has no code for sm_{card.major}{card.minor}; install another build of it."
        yield Finding(f"gpu {number}", "warn" if remedy else "ok", detail, remedy)
    named = visible_gpus()
    if any(name.startswith("MIG-") for name in named):
        yield Finding("mig", "ok", f"{len(named)} slices, each gets a process")


def throughput(config: DoctorConfig) -> Iterator[Finding]:
    """Tiles per second of ResNet-50 with random weights, through this program's own encoder."""
    if config.probe_s <= 0:
        return
    import numpy as np

    from wsi_ncmi.encoders import load_encoder

    with hushed("wsi_ncmi.encoders"):
        encoder = load_encoder(EncoderConfig(name=_PROBE))
    size = encoder.info.batch_size or 16
    tiles = np.random.default_rng(0).integers(0, 255, (size, 256, 256, 3), dtype=np.uint8)
    encoder.encode(tiles)  # kernels are chosen and buffers taken
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < config.probe_s:
        encoder.encode(tiles)
        count += size
    yield Finding(
        "throughput",
        "ok",
        f"{_PROBE.partition(':')[2]} {count / elapsed:.0f} tiles/s on {encoder.info.backend}, "
        f"{encoder.info.precision}, batch {size}",
    )


@contextlib.contextmanager
def hushed(name: str) -> Iterator[None]:
    """Keeps a logger to errors: that the weights are random is meant here."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
