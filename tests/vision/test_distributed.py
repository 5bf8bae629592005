"""Two processes of a run equal one, and share its files."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pandas as pd
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import loss_config
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.vision import ImageJobConfig, fit_images, open_images

# Batch norm has statistics of its own in every process; group norm has none, so that the two can be compared.
NETWORK = {"arguments": {"layers": [1, 1, 1, 1], "channels": [32, 32, 32, 32], "norm_layer": "groupnorm"}}
# No centred and normalised scores either: they divide by what is almost zero in an untrained network, and make
# much of a rounding error (that form's statistics over processes are compared in float64 in tests/losses).
LOSSES = ({"name": "ncmi", "code_words": "means"}, {"name": "ncmi"}, {"name": "ce"})


def _fit(path: str, out: Path, loss: dict, **recipe) -> None:
    config = ImageJobConfig(
        data={"path": path, "crop_padding": 1},
        network=NETWORK,
        recipe={
            "epochs": 2, "batch_size": 16, "warmup_epochs": 0.5, "schedule": "cosine", "device": "cpu",
            "learning_rate": 0.02, **recipe,
        },
    )  # fmt: skip
    fit_images(open_images(config.data), config, loss_config(**loss), seed=0, out=out)


def _worker(rank: int, path: str, out: str, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    with distributed.process_group("cpu"):
        assert (distributed.rank(), distributed.world_size()) == (rank, 2)
        for number, loss in enumerate(LOSSES):
            _fit(path, Path(out) / f"two_{number}", loss)
        try:
            _fit(path, Path(out) / "odd", LOSSES[0], batch_size=15)
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
        _fit(str(image_file), one, loss)
        alone, shared = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
        for name, expected in alone.items():
            if name.startswith("criterion.decision."):
                continue  # Fitted to almost separable classes, it makes much of a rounding error.
            torch.testing.assert_close(shared[name], expected, rtol=1e-3, atol=1e-4)
        curves = [pd.read_csv(folder / "curves.csv") for folder in (one, two)]
        pd.testing.assert_series_equal(curves[0]["train_loss"], curves[1]["train_loss"], rtol=1e-4)
        assert json.loads((two / "run.json").read_text())["identity"]["processes"] == 2
    assert (
        "recipe.batch_size 15 can't be shared evenly by 2 processes" in (tmp_path / "refused_0").read_text()
    )
