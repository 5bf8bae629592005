"""Two processes with half a batch each equal one process with the joint batch."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from wsi_ncmi.losses.ncmi import NCMILoss

FORMS = [
    {"preset": "paper"},
    {"preset": "default", "centring": True},
    {"preset": "ratio", "ratio": "batch", "separation": "pairwise", "code_words": "means"},
    {"preset": "ratio", "code_words": "means", "means_update": "running", "power": 1.0},
    {"preset": "ratio", "code_words": "means", "means_update": "bank", "bank_size": 8},
]


class _Step(torch.nn.Module):
    """Layer and criterion in one module, so that DDP averages the gradients of both."""

    def __init__(self, form: dict) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(5, 6)
        self.criterion = NCMILoss(3, 6, **form)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.criterion(self.layer(x), y)


def _train(module: torch.nn.Module, inner: _Step, xs: list[torch.Tensor], ys: list[torch.Tensor]) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for x, y in zip(xs, ys, strict=True):
        optimizer.zero_grad()
        module(x, y).backward()
        optimizer.step()
    with torch.no_grad():
        inner.criterion.end_epoch(inner.layer(torch.cat(xs)), torch.cat(ys))


def _batches() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    xs = [torch.randn(8, 5, generator=generator, dtype=torch.float64) for _ in range(3)]
    # The classes lie unevenly: one half of a batch lacks some.
    ys = [torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]) for _ in range(3)]
    return xs, ys


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    _train_half(rank, folder)
    dist.barrier()
    dist.destroy_process_group()
    # Gloo's threads outlive the group once DDP has used it. One that asks for the GIL while the interpreter is
    # being taken down is ended by force, which C++ answers with SIGABRT: so the interpreter isn't taken down.
    os._exit(0)


def _train_half(rank: int, folder: str) -> None:
    xs, ys = _batches()
    half = slice(4 * rank, 4 * rank + 4)
    for number, form in enumerate(FORMS):
        inner = _Step(form).double()
        module = DistributedDataParallel(inner)
        _train(module, inner, [x[half] for x in xs], [y[half] for y in ys])
        torch.save(inner.state_dict(), f"{folder}/{number}_{rank}.pt")


def test_two_processes_equal_one():
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, args=(folder,), nprocs=2)
        for number, form in enumerate(FORMS):
            alone = _Step(form).double()
            _train(alone, alone, *_batches())
            for rank in range(2):
                state = torch.load(Path(folder) / f"{number}_{rank}.pt", weights_only=True)
                for name, expected in alone.state_dict().items():
                    difference = (state[name] - expected).abs().max()
                    assert difference <= 1e-9 * expected.abs().max(), (form, name)
