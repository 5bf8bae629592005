"""The worker of a cluster, without the cluster: what it does, and when it says that its machine can't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wsi_ncmi import __version__
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.extraction.claims import claim
from wsi_ncmi.extraction.execution import remote
from wsi_ncmi.extraction.execution.places import Place
from wsi_ncmi.extraction.execution.remote import Order, RemoteWorker, describe, release
from wsi_ncmi.extraction.pipeline import Finished, SlotFree, Stopped

OPTIONS = EncoderConfig(device="cpu", precision="fp32", batch_size=16)
CARD = load_encoder(OPTIONS).info


@pytest.fixture
def order(slides: Path, tmp_path: Path) -> Order:
    probe = tmp_path / "probe"
    probe.touch()
    return Order(OPTIONS, CARD, Place("a", 0, 1, False, 1), 64 << 20, 4, __version__, slides, probe)


def test_it_works_as_a_local_one_does(order: Order, tasks) -> None:
    worker, todo = RemoteWorker(), tasks()
    assert worker.start(order) == CARD
    rows = {}
    handed = 0
    while len(rows) < len(todo):
        for event in worker.poll():
            if isinstance(event, SlotFree) and handed < len(todo):
                worker.submit(handed, todo[handed])
                handed += 1
            elif isinstance(event, Finished):
                rows[event.index] = event.row
    worker.abort()
    assert [rows[index].status for index in range(len(todo))] == ["done"] * len(todo)
    assert worker.poll(0) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"version": "0.0.0"}, "the job was started with 0.0.0"),
        ({"sources": Path("/nowhere")}, "does not see the slide folder"),
        ({"probe": Path("/nowhere")}, "does not see the output folder"),
        ({"card": replace(CARD, precision="fp16")}, "other numbers (precision fp32 instead of fp16)"),
        ({"options": EncoderConfig(name="torchvision:resnet18", weights=Path("/none.pt"))}, "none.pt"),
    ],
)
def test_a_machine_that_can_not(order: Order, monkeypatch, changed: dict[str, object], words: str) -> None:
    monkeypatch.setattr(remote, "_SHARED_PATIENCE_S", 0.0)
    answer = RemoteWorker().start(replace(order, **changed))
    assert isinstance(answer, Stopped)
    assert words in str(answer.error)


def test_describe_gives_a_card_or_a_reason() -> None:
    assert describe(OPTIONS) == CARD
    answer = describe(EncoderConfig(name="torchvision:resnet5O"))
    assert isinstance(answer, Stopped)
    assert "resnet50" in str(answer.error)


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
