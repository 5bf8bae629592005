"""Watching a folder: only whole files, each once, bad ones set aside, and all of it again after a restart."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.prediction.models import write_run
from tests.workflows.conftest import GRID, WIDTH
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.prediction.config import PredictConfig, WatchConfig
from wsi_ncmi.prediction.slide_prediction import SlidePrediction
from wsi_ncmi.slides import SlideRecord, inventory, read_slides_csv
from wsi_ncmi.slides.discovery import FoundSlide
from wsi_ncmi.workflows.predict import Predictor, predict
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.watch import watch

TIMES = WatchConfig(interval_s=10, settle_s=30, until_idle_s=60)


class Clock:
    """Time that passes only by sleeping; things happen in it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.events: dict[int, Callable[[], object]] = {}
        self.sleeps = 0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1
        if self.sleeps in self.events:
            self.events[self.sleeps]()
        assert self.sleeps < 1000


@pytest.fixture
def config(tmp_path: Path, small_bundle: Path) -> PredictConfig:
    (tmp_path / "inbox").mkdir()
    return PredictConfig(
        slides=tmp_path / "inbox", model=small_bundle, out=tmp_path / "out", heatmaps=False,
        extraction=ExecutionConfig(workers=1), watch=TIMES,
    )  # fmt: skip


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Which slides were predicted in each round; the slides themselves are not looked at."""
    seen: list[set[str]] = []

    def run(
        self: Predictor, progress: object, slide_ids: frozenset[str], replaced: object, given: object
    ) -> JobResult:
        seen.append(set(slide_ids))
        self.predictions = {i: (SlidePrediction(i, reason="it is bad"), "f" * 64) for i in slide_ids}
        self.problems = {i: "it is bad" for i in sorted(slide_ids) if i.startswith("bad")}
        return JobResult({}, tuple(f"{i}: {text}" for i, text in self.problems.items()))

    monkeypatch.setattr(Predictor, "run", run)
    return seen


def put(folder: Path, name: str, content: str = "x") -> None:
    (folder / name).write_text(content)


def test_slides_are_taken_once_they_rest(config: PredictConfig, rounds: list[set[str]]) -> None:
    clock, inbox = Clock(), config.slides
    put(inbox, "a.svs")
    grow = {step: (lambda step=step: put(inbox, "b.svs", "x" * step)) for step in range(2, 8)}
    clock.events = {**grow, 12: lambda: put(inbox, "c.svs")}
    result = watch(config, clock=clock.time, sleep=clock.sleep)
    assert rounds == [{"a"}, {"b"}, {"c"}]  # b only after it stopped growing
    assert result.exit_code == 0


def test_a_bad_slide_is_set_aside_until_it_changes(config: PredictConfig, rounds: list[set[str]]) -> None:
    clock, inbox = Clock(), config.slides
    put(inbox, "bad: with colon.svs")
    put(inbox, "good.svs")
    result = watch(config, clock=clock.time, sleep=clock.sleep)
    assert rounds == [{"bad: with colon", "good"}]
    assert result.exit_code == 1
    with (config.out / "quarantine.csv").open(newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert (row["slide_id"], row["path"], row["reason"]) == (
        "bad: with colon",
        "bad: with colon.svs",
        "it is bad",
    )
    assert (inbox / "bad: with colon.svs").is_file()  # slides are never moved
    # Another watch, as after a restart: nothing is done twice, the changed one is tried again.
    watch(config, clock=clock.time, sleep=clock.sleep)
    assert len(rounds) == 1
    put(inbox, "bad: with colon.svs", "mended")
    watch(config, clock=clock.time, sleep=clock.sleep)
    assert rounds[1:] == [{"bad: with colon"}]


def test_answers_stay_under_another_model_unless_they_are_asked_for_again(
    config: PredictConfig, rounds: list[set[str]], small_run: Path
) -> None:
    clock = Clock()
    put(config.slides, "a.svs")
    watch(config, clock=clock.time, sleep=clock.sleep)
    other = replace(config, model=small_run)
    put(config.slides, "b.svs")
    watch(other, clock=clock.time, sleep=clock.sleep)
    assert rounds == [{"a"}, {"b"}]
    again = replace(other, watch=replace(TIMES, answer_again=True))
    watch(again, clock=clock.time, sleep=clock.sleep)
    watch(again, clock=clock.time, sleep=clock.sleep)  # once
    assert rounds[2:] == [{"a"}]


def test_an_hour_is_the_limit_where_none_was_given(
    config: PredictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []
    original = Predictor.__init__

    def spy(self: Predictor, config: PredictConfig) -> None:
        limits.append(config.extraction.timeout_per_slide)
        original(self, config)

    monkeypatch.setattr(Predictor, "__init__", spy)
    clock = Clock()
    idle = replace(config, watch=WatchConfig(until_idle_s=0))
    watch(idle, clock=clock.time, sleep=clock.sleep)
    short = replace(idle, extraction=ExecutionConfig(workers=1, timeout_per_slide=5))
    watch(short, clock=clock.time, sleep=clock.sleep)
    assert limits == [3600.0, 5]


def test_another_encoder_is_told_before_the_first_slide_comes(config: PredictConfig, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", folds=1, width=WIDTH, **{**GRID, "transform": "descriptor 0"})
    with pytest.raises(InputError, match="transform"):
        watch(replace(config, model=run))
    assert not config.out.exists()


def test_wrong_input_is_told(config: PredictConfig, tmp_path: Path) -> None:
    put(tmp_path, "s.svs")
    with pytest.raises(InputError, match="is no folder"):
        watch(replace(config, slides=tmp_path / "s.svs"))
    with pytest.raises(ValidationError, match="greater than 0"):
        WatchConfig(interval_s=0)
    config.out.mkdir()
    put(config.out, "watch.json", "{")
    with pytest.raises(InputError, match=r"watch\.json can't be read"):
        watch(config)


def test_real_slides_arrive(config: PredictConfig, small_slides: Path) -> None:
    clock, inbox = Clock(), config.slides
    shutil.copy(small_slides / "s0.svs", inbox)
    put(inbox, "note.svs", "no slide")
    clock.events = {6: lambda: shutil.copy(small_slides / "s1.svs", inbox)}
    result = watch(
        replace(config, extraction=ExecutionConfig(workers=1, timeout_per_slide=100)),
        clock=clock.time, sleep=clock.sleep,
    )  # fmt: skip
    assert result.exit_code == 1
    with (config.out / "predictions.csv").open(newline="") as handle:
        table = {row["slide_id"]: row for row in csv.DictReader(handle)}
    assert sorted(table) == ["note", "s0", "s1"]
    assert table["s0"]["decision"]
    assert table["s1"]["decision"]
    state = json.loads((config.out / "watch.json").read_text())["slides"]
    assert {path: seen["status"] for path, seen in state.items()} == {
        "note.svs": "quarantined", "s0.svs": "done", "s1.svs": "done",
    }  # fmt: skip
    assert str(config.slides) not in json.dumps(state)


@pytest.fixture
def in_process(config: PredictConfig, monkeypatch: pytest.MonkeyPatch) -> PredictConfig:
    """Without the limit of an hour, for which every round would start another process."""
    monkeypatch.setattr("wsi_ncmi.workflows.watch._TIMEOUT_S", None)
    return replace(config, watch=WatchConfig(settle_s=0, until_idle_s=0))


def watched(config: PredictConfig) -> tuple[JobResult, dict[str, dict[str, str]]]:
    """A watch until nothing comes any more, and ``predictions.csv`` by slide."""
    clock = Clock()
    result = watch(config, clock=clock.time, sleep=clock.sleep)
    with (config.out / "predictions.csv").open(newline="") as handle:
        return result, {row["slide_id"]: row for row in csv.DictReader(handle)}


def test_a_known_failure_is_no_failure_of_predict_and_watch(
    in_process: PredictConfig, small_slides: Path, tmp_path: Path
) -> None:
    shutil.copy(small_slides / "s0.svs", in_process.slides)
    put(in_process.slides, "note.svs", "no slide")
    listed = tmp_path / "known.csv"
    listed.write_text("slide_id\nnote.svs\n")
    config = replace(in_process, known_failures=listed)
    result, table = watched(config)
    assert (result.exit_code, result.failures) == (0, ())
    assert table["s0"]["decision"]
    assert not table["note"]["decision"]
    assert result.notes == ("1 slide predicted, 0 in quarantine, 1 failed as known; nothing new has come.",)
    assert predict(replace(config, out=tmp_path / "once")).exit_code == 0
    assert predict(replace(in_process, out=tmp_path / "once")).exit_code == 1


def test_what_the_list_of_known_failures_says_wrongly_is_told_at_the_end(
    in_process: PredictConfig, small_slides: Path, tmp_path: Path
) -> None:
    shutil.copy(small_slides / "s0.svs", in_process.slides)
    put(in_process.slides, "note.svs", "no slide")
    listed = tmp_path / "known.csv"
    listed.write_text("slide_id,reason\ns0,torn\nnote,melted\ngone,\n")
    config = replace(in_process, known_failures=listed)
    for result, _ in (watched(config), watched(config)):  # also where no round was needed any more
        assert result.notes == (
            "1 slide predicted, 1 in quarantine; nothing new has come.",
            "gone is listed as a known failure and isn't among the slides; correct the list.",
            "note failed otherwise than the list says (melted).",
            "s0 is listed as a known failure and was done; take it off the list.",
        )


@pytest.mark.parametrize("kind", ["mirax", "hamamatsu"])
def test_a_slide_is_tried_again_when_the_pipe_beside_it_went(
    config: PredictConfig, rounds: list[set[str]], kind: str
) -> None:
    inbox, name = config.slides, {"mirax": "a.mrxs", "hamamatsu": "a.vms"}[kind]
    pipe = {"mirax": inbox / "a" / "Data0000.dat", "hamamatsu": inbox / "p.jpg"}[kind]
    pipe.parent.mkdir(exist_ok=True)
    put(inbox, name, "ImageFile=p.jpg\n")
    os.mkfifo(pipe)
    for _ in range(2):
        clock = Clock()
        watch(config, clock=clock.time, sleep=clock.sleep)
    # A pipe that is named like a picture is a row of its own, too.
    assert rounds == [{"mirax": {"a"}, "hamamatsu": {"a", "p"}}[kind]]
    pipe.unlink()
    for _ in range(2):
        clock = Clock()
        watch(config, clock=clock.time, sleep=clock.sleep)
    assert rounds[1:] == [{"a"}]


def test_ids_and_results_stay_when_slides_of_the_same_name_come_and_go(
    in_process: PredictConfig, small_slides: Path
) -> None:
    inbox = in_process.slides
    (inbox / "x").mkdir()
    (inbox / "y").mkdir()
    shutil.copy(small_slides / "s0.svs", inbox / "x" / "a.svs")
    _, first = watched(in_process)
    shutil.copy(small_slides / "s1.svs", inbox / "y" / "a.svs")
    result, both = watched(in_process)
    assert result.exit_code == 0
    assert sorted(both) == ["a", "y__a"]
    assert both["a"] == first["a"]
    (inbox / "x" / "a.svs").unlink()
    shutil.copy(small_slides / "s1.svs", inbox / "b.svs")
    _, later = watched(in_process)
    assert sorted(later) == ["a", "b", "y__a"]
    assert later["a"] == first["a"]
    with (in_process.out / "ledger.csv").open(newline="") as handle:
        assert [row["slide_id"] for row in csv.DictReader(handle)] == ["a", "b", "y__a"]


def test_a_replaced_slide_is_predicted_anew_and_its_earlier_result_kept(
    in_process: PredictConfig, small_slides: Path
) -> None:
    config = replace(in_process, heatmaps=True)
    for name in ("a", "b"):
        shutil.copy(small_slides / "s0.svs", config.slides / f"{name}.svs")
    _, first = watched(config)
    shutil.copy(small_slides / "s1.svs", config.slides / "a.svs")
    put(config.slides, "b.svs", "no slide any more")
    result, second = watched(config)
    assert result.exit_code == 1  # b
    assert second["a"]["confidence"] not in ("", first["a"]["confidence"])
    assert second["b"]["prediction"] == ""
    old_a, old_b = sorted((config.out / "history").iterdir())
    for old, slide_id in ((old_a, "a"), (old_b, "b")):
        kept = json.loads((old / "slides" / f"{slide_id}.json").read_text())
        assert f"{kept['answer']['confidence']}" == first[slide_id]["confidence"]
        assert all((old / name).is_file() for name in kept["files"].values())
    assert '"../../../report.html"' in (old_a / "slides" / "a.html").read_text()
    again, third = watched(config)
    assert (again.exit_code, third) == (1, second)
    assert len(list((config.out / "history").iterdir())) == 2


def test_features_of_another_slide_in_the_cache_cost_that_slide_alone(
    in_process: PredictConfig, small_slides: Path, tmp_path: Path
) -> None:
    config = replace(in_process, cache=tmp_path / "cache")
    for name in ("a", "only here"):
        shutil.copy(small_slides / "s0.svs", config.slides / f"{name}.svs")
    watched(config)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(small_slides / "s1.svs", other / "a.svs")
    shutil.copy(small_slides / "s1.svs", other / "b.svs")
    result, table = watched(replace(config, slides=other, out=tmp_path / "out2"))
    assert result.exit_code == 1
    assert "a.h5 holds features of another kind: the slide's content is another" in table["a"]["reason"]
    assert str(tmp_path) not in table["a"]["reason"]
    assert table["b"]["decision"]
    assert sorted(table) == ["a", "b"]


def test_a_slide_that_goes_away_before_it_is_read_costs_nothing(
    in_process: PredictConfig, small_slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = in_process.slides / "a.svs"
    shutil.copy(small_slides / "s0.svs", slide)
    run = Predictor.run

    def late(self: Predictor, *args: Any) -> JobResult:
        slide.unlink(missing_ok=True)
        return run(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "run", late)
        result, table = watched(in_process)
    assert (result.exit_code, table) == (0, {})
    assert (
        (in_process.out / "predictions.csv")
        .read_text()
        .startswith("slide_id,case_id,fold,seed,label,prediction,p_")
    )
    shutil.copy(small_slides / "s0.svs", slide)
    _, table = watched(in_process)
    assert table["a"]["decision"]


def test_a_memory_of_0_1_0_and_of_another_model_keep_the_ids(
    config: PredictConfig, rounds: list[set[str]], small_run: Path
) -> None:
    for folder in ("x", "y"):
        (config.slides / folder).mkdir()
        put(config.slides / folder, "a.svs")
    clock = Clock()
    watch(config, clock=clock.time, sleep=clock.sleep)
    state = json.loads((config.out / "watch.json").read_text())
    for seen in state["slides"].values():
        assert seen.pop("slide_id") in ("x__a", "y__a")
    (config.out / "watch.json").write_text(json.dumps(state))
    (config.slides / "y" / "a.svs").unlink()
    put(config.slides / "x", "a.svs", "replaced")
    shutil.rmtree(config.out / "audit-log")  # which 0.1.0 didn't know
    watch(replace(config, model=small_run), clock=clock.time, sleep=clock.sleep)
    assert rounds == [{"x__a", "y__a"}, {"x__a"}]


def test_a_round_opens_the_slides_that_came_and_no_others(
    in_process: PredictConfig, small_slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[list[str]] = []
    inspect = inventory.inspect_slides

    def spy(slides: Sequence[tuple[FoundSlide, str, float | None]], *others: Any) -> list[SlideRecord]:
        opened.append([slide_id for _, slide_id, _ in slides])
        return inspect(slides, *others)

    monkeypatch.setattr(inventory, "inspect_slides", spy)
    put(in_process.slides, "bad.svs")
    shutil.copy(small_slides / "s0.svs", in_process.slides / "a.svs")
    watched(in_process)
    shutil.copy(small_slides / "s1.svs", in_process.slides / "b.svs")
    _, table = watched(in_process)
    assert opened == [["a", "bad"], ["b"]]
    assert sorted(table) == ["a", "b", "bad"]
    assert [record.slide_id for record in read_slides_csv(in_process.out / "slides.csv")] == ["a", "b", "bad"]
