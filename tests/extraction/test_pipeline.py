"""Slides through the pipeline: the same bytes whatever they share, and a fault costs its own slide only."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.extraction.conftest import GRID
from wsi_ncmi.core.errors import WsiNcmiError
from wsi_ncmi.encoders import Encoder, EncoderConfig, load_encoder
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.execution.plan import PipelineConfig
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pipeline import Pipeline, Utilisation
from wsi_ncmi.extraction.pipeline.batching import Batch, begin_batch
from wsi_ncmi.extraction.pipeline.pipeline import extract_slide
from wsi_ncmi.extraction.pipeline.utilisation import UtilisationMeter
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features import feature_path, verify_folder
from wsi_ncmi.parallel import Finished, SlotFree, Started, Stopped
from wsi_ncmi.slides import take_inventory
from wsi_ncmi.tiling import GridConfig


class Wrapped(Encoder):
    """A real encoder with something done to each of its batches."""

    def __init__(self, encoder: Encoder) -> None:
        self.__dict__.update(encoder.__dict__)
        self.concurrent = encoder.concurrent
        self.real, self.sizes = encoder, []

    def before(self, pixels) -> None:
        """Raises or counts."""

    def _encode(self, pixels):
        self.sizes.append(len(pixels))
        self.before(pixels)
        return self.real.encode(pixels)


def run(
    encoder: Encoder, tasks: list[SlideTask], **options
) -> tuple[dict[str, LedgerRow], list[object], Utilisation]:
    """All tasks through one pipeline: rows by slide, events, utilisation."""
    events: queue.SimpleQueue = queue.SimpleQueue()
    seen, rows = [], {}
    with Pipeline(encoder, events.put, PipelineConfig(**{"batch_size": 16, **options})) as pipeline:
        for index, task in enumerate(tasks):
            pipeline.submit(index, task)
        while len(rows) < len(tasks):
            event = events.get(timeout=60)
            seen.append(event)
            if isinstance(event, Stopped):
                raise event.error
            if isinstance(event, Finished):
                rows[event.result.slide_id] = event.result
        utilisation = pipeline.utilisation
    return rows, seen, utilisation


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def usual(slides: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a job leaves that does one slide after the other."""
    config = ExtractConfig(slides=slides, out=tmp_path_factory.mktemp("usual"), grid=GRID)
    for record in take_inventory(slides):
        extract_slide(SlideTask(record, config), encoder)
    return files_of(config.out)


def test_small_slides_share_batches_and_keep_their_bytes(
    tasks, encoder: Encoder, usual: dict[str, bytes], tmp_path: Path
) -> None:
    counting = Wrapped(encoder)
    rows, events, utilisation = run(counting, tasks(out=tmp_path / "together"), readers=1)
    assert {row.status for row in rows.values()} == {"done"}
    assert files_of(tmp_path / "together") == usual
    # Three slides of some 30 tiles: only the last batch of all is not full.
    assert sum(size != 16 for size in counting.sizes) <= 1
    assert utilisation.tiles == sum(counting.sizes) == sum(row.tiles for row in rows.values())
    assert 0 < utilisation.busy_s <= utilisation.open_s
    assert {event.index for event in events if isinstance(event, Started)} == {0, 1, 2, 3}
    assert any(isinstance(event, SlotFree) for event in events)


def test_only_where_two_slides_meet_are_tiles_copied_together(tasks, encoder: Encoder, monkeypatch) -> None:
    parts: list[int] = []

    def begin(encoder: Encoder, batch: Batch) -> Callable[[], None]:
        parts.append(len(batch.chunks))
        return begin_batch(encoder, batch)

    monkeypatch.setattr("wsi_ncmi.extraction.pipeline.pipeline.begin_batch", begin)
    rows, _, _ = run(encoder, tasks(), batch_size=8)
    borders = sum(row.tiles > 0 for row in rows.values()) - 1
    assert sum(count - 1 for count in parts) <= borders < len(parts) / 2


@pytest.mark.parametrize(
    "options",
    [
        {"encoder_threads": 3, "readers": 3, "decode_threads": 2},
        {"batch_size": 1},
        {"batch_size": 500},
        {"buffer_bytes": 5 * 64 * 64 * 3, "slide_bytes": 1},
    ],
)
def test_threads_batches_and_memory_change_no_byte(
    tasks, encoder: Encoder, usual: dict[str, bytes], tmp_path: Path, options
) -> None:
    rows, _, _ = run(encoder, tasks(out=tmp_path / "other"), **options)
    assert {row.status for row in rows.values()} == {"done"}
    assert files_of(tmp_path / "other") == usual


@pytest.mark.real_data
def test_a_networks_vectors_do_not_depend_on_neighbours(real_data: Path, tasks, tmp_path: Path) -> None:
    options = EncoderConfig(
        name="torchvision:squeezenet1_1", weights=real_data / "encoders", device="cpu", batch_size=8
    )
    encoder = load_encoder(options)
    for task in tasks(out=tmp_path / "alone"):
        extract_slide(task, encoder)
    run(encoder, tasks(out=tmp_path / "together"), encoder_threads=2, readers=2)
    assert files_of(tmp_path / "together") == files_of(tmp_path / "alone")


class RaisesOn(Wrapped):
    """Fails for every batch that holds a certain tile, as a network may for what it was never shown."""

    def __init__(self, encoder: Encoder, tile, error: Exception) -> None:
        super().__init__(encoder)
        self.tile, self.error = tile, error

    def before(self, pixels) -> None:
        if (pixels == self.tile).all(axis=(1, 2, 3)).any():
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError("boom"), WsiNcmiError("no such colour")])
def test_a_tile_that_the_encoder_refuses_costs_its_own_slide(
    tasks, encoder: Encoder, usual: dict[str, bytes], tmp_path: Path, error
) -> None:
    from wsi_ncmi.extraction.slide import prepare_slide
    from wsi_ncmi.slides import open_slide
    from wsi_ncmi.tiling import read_tile

    todo = tasks(out=tmp_path / "out")
    with open_slide(todo[2].slide_path) as slide:
        prepared = prepare_slide(todo[2], slide)
        tile = read_tile(slide, prepared.grid, int(prepared.selection.indices[3]))
        x, y = prepared.selection.coords[3].tolist()
    rows, _, _ = run(RaisesOn(encoder, tile, error), todo, batch_size=500)
    assert {name: row.status for name, row in rows.items()} == {
        "empty": "done", "slide_0": "done", "slide_1": "failed", "slide_2": "done",
    }  # fmt: skip
    assert str(error) in rows["slide_1"].reason
    assert f"x {x}, y {y}" in rows["slide_1"].reason
    assert not feature_path(todo[0].out, "descriptor", "slide_1").exists()
    again, _, _ = run(encoder, todo)
    assert {row.status for row in again.values()} == {"done", "skipped"}
    assert files_of(tmp_path / "out") == usual


def test_a_batch_that_fails_once_is_done_after_all(tasks, encoder: Encoder) -> None:
    class FailsOnce(Wrapped):
        def before(self, pixels) -> None:
            if len(self.sizes) == 2:
                raise RuntimeError("a passing fault of the device")

    rows, _, _ = run(FailsOnce(encoder), tasks())
    assert {row.status for row in rows.values()} == {"done"}


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_when_memory_runs_out_batches_are_halved_and_the_ledger_says_so(
    tasks, encoder: Encoder, usual: dict[str, bytes], tmp_path: Path, error
) -> None:
    class Small(Wrapped):
        def before(self, pixels) -> None:
            if len(pixels) > 5:
                raise error

    small = Small(encoder)
    rows, _, _ = run(small, tasks(out=tmp_path / "small"))
    assert {row.status for row in rows.values()} == {"done"}
    assert all("memory ran out" in row.reason for row in rows.values() if row.tiles)
    assert max(size for size in small.sizes if size <= 5) == 4
    assert files_of(tmp_path / "small") == usual


def test_the_next_slide_is_read_while_the_encoder_works(tasks, encoder: Encoder) -> None:
    """The encoder waits until the second slide is being read; it would wait for ever without overlap."""
    second, late = threading.Event(), []

    class Slow(Wrapped):
        def before(self, pixels) -> None:
            if not second.wait(30):
                late.append(True)

    events: queue.SimpleQueue = queue.SimpleQueue()

    def report(event: object) -> None:
        if isinstance(event, Started) and event.index == 1:
            second.set()
        events.put(event)

    todo = tasks()[1:3]
    with Pipeline(Slow(encoder), report, PipelineConfig(batch_size=8)) as pipeline:
        for index, task in enumerate(todo):
            pipeline.submit(index, task)
    assert late == []
    assert all(verdict.ok for verdict in verify_folder(todo[0].out))


def test_giving_up_leaves_no_claim_and_no_part_of_a_file(tasks, encoder: Encoder) -> None:
    class Stuck(Wrapped):
        def before(self, pixels) -> None:
            begun.set()
            go_on.wait(30)

    begun, go_on, todo = threading.Event(), threading.Event(), tasks()[1:]

    def job() -> None:
        with Pipeline(Stuck(encoder), lambda _: None, PipelineConfig(batch_size=8)) as pipeline:
            for index, task in enumerate(todo):
                pipeline.submit(index, task)
            begun.wait(30)
            go_on.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job()
    features = feature_path(todo[0].out, "descriptor", "x").parent
    assert list((features / ".claims").iterdir()) == []
    assert list(todo[0].out.rglob("*.partial")) == []
    rows, _, _ = run(encoder, todo)
    assert {row.status for row in rows.values()} <= {"done", "skipped"}


def test_tiles_larger_than_the_buffer_still_pass(tasks, encoder: Encoder) -> None:
    grid = GridConfig(mpp=0.5, tile_px=384)
    rows, _, _ = run(encoder, tasks(grid=grid)[1:2], buffer_bytes=1000)
    assert rows["slide_0"].status == "done"
    assert rows["slide_0"].tiles > 0


def test_the_meter_counts_idle_encoder_threads() -> None:
    assert Utilisation().idle_share == 0.0
    assert Utilisation(10, 3.0, 4.0).idle_share == 0.25
    assert Utilisation(1, 1.0, 2.0) + Utilisation(2, 3.0, 4.0) == Utilisation(3, 4.0, 6.0)
    meter = UtilisationMeter(2)
    meter.start()
    with meter.working():
        threading.Event().wait(0.05)
    meter.count(7)
    assert meter.utilisation.tiles == 7
    assert 0.3 < meter.utilisation.idle_share < 0.7  # one of two threads worked
    assert np.isclose(meter.utilisation.open_s, 2 * meter.utilisation.busy_s, rtol=0.5)
