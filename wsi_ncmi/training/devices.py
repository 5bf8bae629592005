"""Device, threads and random numbers of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training.config import TrainingConfig

__all__ = ["device_of", "private_torch"]


def device_of(training: TrainingConfig) -> torch.device:
    """The device that the options ask for.

    Raises:
        InputError: There is no usable GPU, or a precision that needs one.
    """
    if training.device == "cuda" and not torch.cuda.is_available():
        raise InputError("training.device is 'cuda' but there is no usable GPU; set it to 'auto' or 'cpu'.")
    use_cuda = training.device != "cpu" and torch.cuda.is_available()
    if training.precision == "fp16" and not use_cuda:
        raise InputError("training.precision 'fp16' needs a GPU; on a CPU choose 'bf16' or 'fp32'.")
    return distributed.local_device(use_cuda)


@contextlib.contextmanager
def private_torch(threads: int, device: torch.device) -> Iterator[None]:
    """Threads and random numbers of its own for the block; the caller's are as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(before)
