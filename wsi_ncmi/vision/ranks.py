"""The processes of a run started by ``torchrun``, or the one process of any other run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn

from wsi_ncmi.core.errors import InputError

__all__ = ["Ranks", "process_group", "share_buffers"]


@dataclass(frozen=True)
class Ranks:
    """Which process this is.

    Attributes:
        rank: Its number.
        world: How many there are.
        device: Its device.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's part of ``count`` items: consecutive, of near-equal size, rank 0 first."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)


@contextlib.contextmanager
def process_group(device: Literal["auto", "cpu", "cuda"]) -> Iterator[Ranks]:
    """Joins the processes of ``torchrun`` (NCCL on CUDA, Gloo on CPU) as long as the block lasts.

    Args:
        device: Where to train; ``auto`` takes CUDA when there is one.

    Raises:
        InputError: CUDA is asked for and there is none, or fewer devices than local processes.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InputError("recipe.device is 'cuda' but there is no usable GPU; set it to 'auto' or 'cpu'.")
    use_cuda = device != "cpu" and available
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if use_cuda and local >= torch.cuda.device_count():
        raise InputError(
            f"torchrun started more processes than the {torch.cuda.device_count()} GPUs of this machine; "
            "lower --nproc-per-node."
        )
    place = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(place)
    if world == 1 or dist.is_initialized():
        rank = dist.get_rank() if dist.is_initialized() else 0
        yield Ranks(rank, dist.get_world_size() if dist.is_initialized() else 1, place)
        return
    dist.init_process_group("nccl" if use_cuda else "gloo", device_id=place if use_cuda else None)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()


def share_buffers(module: nn.Module, ranks: Ranks) -> None:
    """Gives the buffers of rank 0 to all, as each forward pass of data parallelism begins.

    Running statistics of batch norm differ between processes after a step: what is evaluated and saved must
    not depend on which process did it.
    """
    if ranks.world > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
