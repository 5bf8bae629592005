"""Two processes of a run equal one, and share its files."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import loss_config
from wsi_ncmi.vision import ImageDataConfig, NetworkConfig, RecipeConfig, fit_images, open_images
from wsi_ncmi.vision.ranks import Ranks, process_group

# Batch norm has statistics of its own in every process; group norm has none, so that the two can be compared.
NETWORK = {"arguments": {"layers": [1, 1, 1, 1], "channels": [32, 32, 32, 32], "norm_layer": "groupnorm"}}
# No centred and normalised scores either: they divide by what is almost zero in an untrained network, and make
# much of a rounding error (that form's statistics over processes are compared in float64 in tests/losses).
LOSSES = ({"name": "ncmi", "code_words": "means"}, {"name": "ncmi"}, {"name": "ce"})


def _fit(path: str, out: Path, loss: dict, ranks: Ranks, **recipe) -> None:
    data = ImageDataConfig(path=Path(path), crop_padding=1)
    options = RecipeConfig(
        epochs=2,
        batch_size=16,
        warmup_epochs=0.5,
        schedule="cosine",
        device="cpu",
        learning_rate=0.02,
        **recipe,
    )
    fit_images(
        open_images(data), data=data, network=NetworkConfig(**NETWORK), loss=loss_config(**loss), recipe=options,
        seed=0, out=out, ranks=ranks,
    )  # fmt: skip


def _worker(rank: int, path: str, out: str, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    with process_group("cpu") as ranks:
        assert (ranks.rank, ranks.world) == (rank, 2)
        for number, loss in enumerate(LOSSES):
            _fit(path, Path(out) / f"two_{number}", loss, ranks)
        try:
            _fit(path, Path(out) / "odd", LOSSES[0], Ranks(rank, 3, ranks.device))
        except InputError as error:
            Path(out, f"refused_{rank}").write_text(str(error))
        torch.distributed.barrier()
    # Gloo's threads outlive the group once DDP has used it, and one that asks for the GIL while the interpreter
    # is being taken down aborts the process: so it isn't taken down.
    os._exit(0)


def test_two_processes_equal_one(image_file, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, args=(str(image_file), str(tmp_path), port), nprocs=2)
    for number, loss in enumerate(LOSSES):
        one, two = tmp_path / f"one_{number}", tmp_path / f"two_{number}"
        _fit(str(image_file), one, loss, Ranks(0, 1, torch.device("cpu")))
        alone, shared = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
        for name, expected in alone.items():
            if name.startswith("criterion.decision."):
                continue  # Fitted to almost separable classes, it makes much of a rounding error.
            torch.testing.assert_close(shared[name], expected, rtol=1e-3, atol=1e-4)
        curves = [pd.read_csv(folder / "curves.csv") for folder in (one, two)]
        pd.testing.assert_series_equal(curves[0]["train_loss"], curves[1]["train_loss"], rtol=1e-4)
        assert json.loads((two / "run.json").read_text())["identity"]["processes"] == 2
    assert "can't be shared evenly by 3 processes" in (tmp_path / "refused_0").read_text()


@pytest.mark.parametrize(("count", "world"), [(10, 3), (2, 4), (7, 1), (0, 2)])
def test_parts_cover_everything_once(count, world):
    parts = [range(count)[Ranks(rank, world, torch.device("cpu")).part(count)] for rank in range(world)]
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
