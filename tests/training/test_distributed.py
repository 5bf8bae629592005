"""Two processes of torchrun end with the weights of one, and go on after a cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.parallel import process_group as distributed
from wsi_ncmi.training import RunConfig, fit
from wsi_ncmi.training.checkpoint import MODEL_WEIGHTS
from wsi_ncmi.training.resume import read_resume, write_resume

SHARED_RUN = """
import json, os, sys
from pathlib import Path
import torch
from wsi_ncmi.cohorts import Fold, open_bag_source
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import RunConfig, TrainingConfig, fit
from wsi_ncmi.parallel.process_group import process_group, rank, world_size
from wsi_ncmi.training.loop import TrainingLoop

job = json.loads(sys.argv[1])
source = open_bag_source(Path(job["path"]))

def run(out, loss, model, **changes):
    config = RunConfig(model=model_config(**model), loss=loss_config(**loss),
                       training=TrainingConfig(**{**job["training"], **changes}))
    return fit(source, Fold(*map(tuple, job["fold"])), source.embedded_cohort(), config, out=Path(out))

with process_group("cpu"):
    assert world_size() == 2
    for number, loss in enumerate(job["losses"]):
        weights = run(f"{job['out']}/calm_{number}", loss, job["calm"]).model.aggregator.state_dict()
        torch.save(weights, f"{job['out']}/rank_{number}_{rank()}.pt")
    rough = {**job["calm"], "dropout": 0.25}
    run(f"{job['out']}/whole", job["losses"][0], rough, checkpoint_interval_s=0.0)
    step, taken = TrainingLoop._take_step, 0
    def cut(self, *batch):
        global taken
        taken += 1
        if taken > 7:
            raise KeyboardInterrupt
        return step(self, *batch)
    TrainingLoop._take_step = cut
    try:
        run(f"{job['out']}/cut", job["losses"][0], rough, checkpoint_interval_s=0.0)
        raise SystemExit("was not cut")
    except KeyboardInterrupt:
        pass
    TrainingLoop._take_step = step
    run(f"{job['out']}/cut", job["losses"][0], rough, checkpoint_interval_s=0.0)
sys.stdout.flush()
os._exit(0)  # Gloo's threads outlive the group: see tests/losses/test_ncmi_distributed.py
"""


def test_two_processes_equal_one(task, kit, tmp_path):
    calm = model_config(hidden=16, attention=8, dropout=0.0)
    losses = [loss_config(name="ce"), loss_config(name="ncmi")]
    training = replace(kit.QUICK, batch_size=5)  # an odd number: the shares of a step are 2 and 3 bags
    job = {
        "path": str(task.path), "fold": [task.fold.train, task.fold.validation, task.fold.test],
        "out": str(tmp_path), "calm": asdict(calm), "training": asdict(training),
        "losses": [asdict(loss) for loss in losses],
    }  # fmt: skip
    script = tmp_path / "job.py"
    script.write_text(SHARED_RUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*command, str(script), json.dumps(job)], capture_output=True, text=True, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    for number, loss in enumerate(losses):
        alone = tmp_path / f"alone_{number}"
        fit(
            task.source,
            task.fold,
            task.cohort,
            RunConfig(model=calm, loss=loss, training=training),
            out=alone,
        )
        expected = load_file(alone / MODEL_WEIGHTS)
        for name, found in load_file(tmp_path / f"calm_{number}" / MODEL_WEIGHTS).items():
            if name == "aggregator.score.bias":
                continue  # softmax doesn't depend on it: its gradient is rounding alone, which Adam makes a step of
            torch.testing.assert_close(
                found,
                expected[name],
                rtol=1e-3,
                atol=1e-4,
                msg=lambda text, name=name, loss=loss: f"{loss.name} {name}: {text}",
            )
        ranks = [torch.load(tmp_path / f"rank_{number}_{r}.pt", weights_only=True) for r in range(2)]
        assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    assert (tmp_path / "cut" / MODEL_WEIGHTS).read_bytes() == (
        tmp_path / "whole" / MODEL_WEIGHTS
    ).read_bytes()


def test_without_torchrun_there_is_one_process():
    with distributed.process_group("auto"):
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.share_of(7) == slice(0, 7)
    assert distributed.any_rank(True, torch.device("cpu"))
    assert distributed.from_first("x") == "x"


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_shares_are_contiguous_and_near_equal(monkeypatch, count):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    shares = []
    for place in range(3):
        monkeypatch.setattr(distributed, "rank", lambda place=place: place)
        shares.append(list(range(count))[distributed.share_of(count)])
    assert [i for share in shares for i in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_processes_than_bags_in_a_step_are_refused(task, kit, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    monkeypatch.setattr(distributed, "from_first", lambda value: value)
    training = replace(kit.QUICK, batch_size=2)
    with pytest.raises(InputError, match="3 processes can't share steps of 2 slides"):
        fit(
            task.source,
            task.fold,
            task.cohort,
            RunConfig(model=kit.MODEL, loss=kit.CE, training=training),
            out=tmp_path,
        )


def test_a_checkpoint_of_another_number_of_processes_is_refused(task, kit, tmp_path, monkeypatch):
    from wsi_ncmi.training.loop import TrainingLoop

    close = TrainingLoop._close_epoch

    def cut(self):
        close(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "_close_epoch", cut)
    training = replace(kit.QUICK, checkpoint_interval_s=0.0)

    def run():
        fit(
            task.source,
            task.fold,
            task.cohort,
            RunConfig(model=kit.MODEL, loss=kit.CE, training=training),
            out=tmp_path,
        )

    with pytest.raises(KeyboardInterrupt):
        run()
    identity, state = read_resume(tmp_path)
    write_resume(tmp_path, identity, {**state, "rng": state["rng"] * 2})
    with pytest.raises(InputError, match="begun with 2 processes, these are 1"):
        run()
