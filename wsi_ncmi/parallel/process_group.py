"""Device of a run, and one run over several processes (torchrun), each with its share of every step's bags.

Gradients are summed after the backward pass in one flat message. The models here have up to ten million
parameters, so overlapping the message with the computation, as ``DistributedDataParallel`` does, would gain
little, and any aggregator, criterion and number of accumulated batches works without wrapping.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError

_T = TypeVar("_T")


def _is_launched() -> bool:
    """Whether torchrun (or what sets the same variables) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def world_size() -> int:
    """Processes of the run; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Position of this process; the one with 0 writes the files."""
    return dist.get_rank() if world_size() > 1 else 0


@contextlib.contextmanager
def process_group(device: str) -> Iterator[None]:
    """Joins the processes that torchrun started, for the length of the block; nothing in a single process.

    Args:
        device: ``training.device``: NCCL where the run is on GPUs, Gloo on CPUs.

    Raises:
        InputError: Fewer GPUs than processes of this machine.
    """
    if not _is_launched() or world_size() > 1:
        yield
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        here, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if here >= found:
            raise InputError(
                f"torchrun started more processes on this machine than its {found} GPUs; "
                f"give --nproc-per-node {found}."
            )
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def resolve_device(device: str, key: str) -> torch.device:
    """The device that a run uses in this process.

    Args:
        device: ``cpu``, ``cuda`` or ``auto``.
        key: The key of the configuration that says so, for the message.

    Raises:
        InputError: CUDA is asked for and there is no usable GPU.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InputError(f"{key} is 'cuda' but there is no usable GPU; set it to 'auto' or 'cpu'.")
    if device == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device()) if world_size() > 1 else torch.device("cuda")


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


def share_of(count: int) -> slice:
    """This process's share of ``count`` things: contiguous, in the order of the ranks, of near-equal size."""
    size, place = world_size(), rank()
    return slice(place * count // size, (place + 1) * count // size)


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sums gradients over the processes, in place; a parameter without gradient counts as zero."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def broadcast_buffers(*modules: nn.Module) -> None:
    """Gives all processes the first one's buffers (running statistics of each one's own bags)."""
    if world_size() > 1:
        for module in modules:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the first process says so: what depends on a clock must not differ between processes."""
    if world_size() == 1:
        return flag
    told = torch.tensor([int(flag)], device=device)
    dist.broadcast(told, 0)
    return bool(told.item())


def from_first(value: _T) -> _T:
    """The first process's value, in all of them (picklable)."""
    if world_size() == 1:
        return value
    held: list[Any] = [value]
    dist.broadcast_object_list(held, 0)
    found: _T = held[0]
    return found


def gather_objects(value: Tensor) -> list[Tensor]:
    """The tensors of all processes, in the order of the ranks."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found
