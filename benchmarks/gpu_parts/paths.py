"""(a) What runs on CUDA, against the CPU: the checks of ``doctor --gpu``, and the compiler."""

import os
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import torch

from benchmarks.gpu_parts.record import Figures, NotHereError, Record
from wsi_ncmi.doctor.gpu import CHECKS
from wsi_ncmi.encoders import load_encoder
from wsi_ncmi.parallel.gpus import list_devices

_SECOND = """
import torch
from wsi_ncmi.parallel.process_group import process_group
with process_group("cuda"):
    pass
"""


def measure(record: Record, device: torch.device, *, small: bool) -> None:
    """All checks; ``small`` leaves out what takes a compiler."""
    for name, check in CHECKS.items():
        record.measure(name, partial(_checked, check, device))
    record.measure("driver", lambda: {"nvidia_smi": list_devices().strip()})
    record.measure("torchrun", partial(_too_many, device))
    if not small:
        record.measure("compile", partial(_compiled, device), needs_s=20)


def _checked(check: object, device: torch.device) -> Figures:
    assert callable(check)
    return {"found": check(device)}


def _compiled(device: torch.device) -> Figures:
    """An encoder through ``torch.compile`` gives the vectors of the plain one."""
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        raise NotHereError("torch.compile needs a C compiler (gcc), and there is none")
    tiles = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    plain, compiled = (
        load_encoder("torchvision:resnet18", device=device.type, batch_size=8, backend=backend).encode(tiles)
        for backend in ("torch", "compile")
    )
    lengths = np.linalg.norm(plain, axis=1) * np.linalg.norm(compiled, axis=1)
    cosine = float(((plain * compiled).sum(axis=1) / lengths).min())
    if not cosine > 0.999:
        raise ValueError(f"compiled vectors have a cosine of {cosine:.5f} to the plain ones")
    return {"cosine": cosine}


def _too_many(device: torch.device) -> Figures:
    """More processes than GPUs are refused before they wait for each other."""
    if device.type != "cuda":
        raise NotHereError("there is no GPU to count")
    count = torch.cuda.device_count()
    environment = {
        **os.environ, "RANK": str(count), "WORLD_SIZE": str(count + 1), "LOCAL_RANK": str(count),
        "MASTER_ADDR": "localhost", "MASTER_PORT": "29511",
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", _SECOND], env=environment, capture_output=True, text=True, timeout=60
    )
    last = ended.stderr.strip().splitlines()[-1:]
    if not last or "more processes on this machine" not in last[0]:
        raise ValueError(f"a process without a GPU of its own said {last}")
    return {"found": last[0]}
