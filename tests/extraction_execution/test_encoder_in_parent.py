"""The parent process builds no encoder while worker processes run; a fault of it is told before any slide."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction import ExecutionConfig, ExtractConfig, open_engine
from wsi_ncmi.extraction.execution import local
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.workflows import extract

ENCODER = """
import os
from pathlib import Path
from wsi_ncmi.encoders import EncoderConfig, load_encoder

def build():
    with Path(__file__).with_name("builders").open("a") as handle:
        handle.write(f"{os.getpid()}\\n")
    return load_encoder(EncoderConfig(device="cpu"))
"""


@pytest.fixture
def encoder(tmp_path: Path) -> EncoderConfig:
    """The descriptor, built by a file that writes down who builds it."""
    file = tmp_path / "encoder" / "own.py"
    file.parent.mkdir()
    file.write_text(ENCODER)
    return EncoderConfig(name=f"file:{file}:build", device="cpu", batch_size=16)


def builders(encoder: EncoderConfig) -> list[int]:
    file = Path(encoder.name.split(":")[1]).with_name("builders")
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize(
    ("execution", "count"),
    [({"workers": 2}, 2), ({"workers": 1, "timeout_per_slide": 300}, 1), ({"workers": None}, 1)],
)
def test_an_extraction_builds_it_in_its_workers_alone_and_once_in_each(
    slides: Path, tmp_path: Path, encoder: EncoderConfig, execution: dict[str, object], count: int
) -> None:
    config = ExtractConfig(
        slides=slides, out=tmp_path / "out", grid=GridConfig(mpp=0.5, tile_px=64), encoder=encoder,
        extraction=ExecutionConfig(**execution),
    )  # fmt: skip
    seen = []
    result = extract(config, on_encoder=lambda info: seen.append((info.name, builders(encoder))))
    assert result.failures == ()
    # One worker was there, and nobody else, when the encoder was described; it worked on the slides then.
    ((name, before),) = seen
    assert name == "file:own.py:build"
    assert len(before) == 1
    pids = builders(encoder)
    assert pids[:1] == before
    assert os.getpid() not in pids
    assert len(set(pids)) == len(pids) <= count  # the first may be done before the second has begun


def test_one_worker_without_a_time_limit_is_this_process_and_builds_it_once(
    tasks, encoder: EncoderConfig
) -> None:
    todo = tasks()
    with open_engine(ExecutionConfig(workers=1), encoder) as engine:
        assert engine.encoder.name == "file:own.py:build"
        assert [row.status for row in engine.run(todo[:2])] == ["done"] * 2
        assert [row.status for row in engine.run(todo)] == ["skipped"] * 2 + ["done"] * 2
    assert builders(encoder) == [os.getpid()]


def test_an_engine_runs_again_with_new_workers(tasks, encoder: EncoderConfig) -> None:
    todo = tasks()
    with open_engine(ExecutionConfig(workers=1, timeout_per_slide=300), encoder) as engine:
        assert [row.status for row in engine.run(todo[:2])] == ["done"] * 2
        assert [row.status for row in engine.run(todo)] == ["skipped"] * 2 + ["done"] * 2
    assert os.getpid() not in builders(encoder)


def test_a_first_worker_with_other_threads_than_the_job_needs_is_replaced(
    tasks, encoder: EncoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some libraries read the number of threads once, when they are loaded."""
    plan = local.plan_resources

    def planned(*args: object, slides: int, **more: object) -> object:
        found = plan(*args, slides=slides, **more)
        return local.ResourcePlan(found.processes, 2 if slides > 100 else 1, found.pipeline)

    monkeypatch.setattr(local, "plan_resources", planned)
    with open_engine(ExecutionConfig(workers=1, timeout_per_slide=300), encoder) as engine:
        assert engine.encoder.embed_dim
        assert [row.status for row in engine.run(tasks())] == ["done"] * 4
    pids = builders(encoder)
    assert len(set(pids)) == len(pids) == 2
    assert os.getpid() not in pids


@pytest.mark.parametrize("workers", [1, 2])
def test_a_wrong_encoder_is_told_before_a_slide_is_opened(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("slides were looked at")

    monkeypatch.setattr("wsi_ncmi.extraction.planning.list_slides", opened)
    config = ExtractConfig(
        slides=slides, out=tmp_path / "out", extraction=ExecutionConfig(workers=workers),
        encoder=EncoderConfig(name="torchvision:resnet18", weights=tmp_path / "none.pt"),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"none\.pt"):
        extract(config)
    assert not (tmp_path / "out").exists()
