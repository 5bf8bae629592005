"""The worker of a cluster, without the cluster, and its reasons why a machine can't work on a job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wsi_ncmi import __version__
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.encoders.network import _warn_random
from wsi_ncmi.extraction.claims import claim
from wsi_ncmi.extraction.execution import ray_worker
from wsi_ncmi.extraction.execution.plan import WorkerSlot
from wsi_ncmi.extraction.execution.ray_worker import RemoteWorker, WorkerConfig, describe, release
from wsi_ncmi.parallel import Finished, Ready, SlotFree, Stopped

OPTIONS = EncoderConfig(device="cpu", precision="fp32", batch_size=16)
INFO = load_encoder(OPTIONS).info


@pytest.fixture
def config(slides: Path, tmp_path: Path) -> WorkerConfig:
    probe = tmp_path / "probe"
    probe.touch()
    return WorkerConfig(
        OPTIONS, INFO, WorkerSlot("a", 0, 1, False, 1), 64 << 20, 4, __version__, slides, probe
    )


def test_it_works_as_a_local_one_does(config: WorkerConfig, tasks) -> None:
    worker, todo = RemoteWorker(), tasks()
    assert worker.start(config) == INFO
    rows = {}
    handed = 0
    while len(rows) < len(todo):
        for event in worker.poll():
            if isinstance(event, SlotFree) and handed < len(todo):
                worker.submit(handed, todo[handed])
                handed += 1
            elif isinstance(event, Finished):
                rows[event.index] = event.result
    worker.abort()
    assert [rows[index].status for index in range(len(todo))] == ["done"] * len(todo)
    assert worker.poll(0) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"version": "0.0.0"}, "the job was started with 0.0.0"),
        ({"sources": Path("/nowhere")}, "does not see the slide folder"),
        ({"probe": Path("/nowhere")}, "does not see the output folder"),
        ({"info": replace(INFO, precision="fp16")}, "other numbers (precision fp32 instead of fp16)"),
        ({"encoder": EncoderConfig(name="torchvision:resnet18", weights=Path("/none.pt"))}, "none.pt"),
    ],
)
def test_a_machine_that_can_not(
    config: WorkerConfig, monkeypatch, changed: dict[str, object], words: str
) -> None:
    monkeypatch.setattr(ray_worker, "_SHARED_PATIENCE_S", 0.0)
    answer = RemoteWorker().start(replace(config, **changed))
    assert isinstance(answer, Stopped)
    assert words in str(answer.error)


def test_describe_gives_the_encoder_or_a_reason_and_what_was_logged() -> None:
    assert describe(OPTIONS) == [Ready(INFO)]
    (answer,) = describe(EncoderConfig(name="timm:resnet50.no_such_tag"))
    assert isinstance(answer, Stopped)
    assert "resnet50" in str(answer.error)
    _warn_random.cache_clear()  # it is said once a process, perhaps to a test before
    logged, ready = describe(EncoderConfig(name="torchvision:squeezenet1_1", device="cpu"))
    assert "RANDOM" in logged.record.getMessage()
    assert ready.info.weights_source == "random (seed 0)"


def test_release_frees_what_the_dead_held_and_waits_for_the_living(tasks) -> None:
    first, second = tasks()[:2]
    dead, held = first.claim_path("descriptor"), second.claim_path("descriptor")
    dead.parent.mkdir(parents=True)
    with claim(dead):
        text = dead.read_text()
    # A process of this machine that is gone: its number is no process's.
    dead.write_text(text.replace('"pid": ', '"pid": 99999'))
    with claim(held) as ours:
        assert ours
        release([first, second], "descriptor", patience_s=0.3)
        assert not dead.exists()
        assert held.exists()
