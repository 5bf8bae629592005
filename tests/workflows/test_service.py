"""A watched folder as a service: every answer once in the audit trail, over restarts, models and kills."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from tests.prediction.models import export, make_bundle, write_run
from tests.workflows.conftest import GRID, WIDTH
from tests.workflows.test_watch import Clock
from wsi_ncmi.cli.app import app
from wsi_ncmi.core import heartbeat
from wsi_ncmi.core.errors import InputError, JobStoppedError
from wsi_ncmi.core.interrupts import TerminatedError, sigterm_as_interrupt
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.extraction.pipeline import pipeline
from wsi_ncmi.prediction.config import PredictConfig, WatchConfig
from wsi_ncmi.prediction.slide_prediction import SlidePrediction
from wsi_ncmi.prediction.watch import WatchedFolder
from wsi_ncmi.prediction.worklist import Answers
from wsi_ncmi.service import AuditLog, check_audit_log
from wsi_ncmi.workflows import watch as watching
from wsi_ncmi.workflows.predict import Predictor
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.watch import watch

IDLE = WatchConfig(settle_s=0, until_idle_s=0)


@pytest.fixture
def config(tmp_path: Path, small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> PredictConfig:
    """Without a limit of time, for which every round would start another process."""
    monkeypatch.setattr(watching, "_TIMEOUT_S", None)
    (tmp_path / "inbox").mkdir()
    return PredictConfig(
        slides=tmp_path / "inbox", model=small_bundle, out=tmp_path / "out", heatmaps=False, geojson=False,
        extraction=ExecutionConfig(workers=1), watch=IDLE,
    )  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Rounds whose answers depend on slide and model alone; nothing is opened."""
    seen: list[list[str]] = []

    def run(self: Predictor, _: object, slide_ids: frozenset[str], *others: object) -> JobResult:
        seen.append(sorted(slide_ids))
        name, chances = self.bundle.name, dict.fromkeys(self.bundle.classes, 1.0)
        self.predictions = {
            i: (SlidePrediction(i, name, name, chances, 1.0, agreement=1.0, ood_score=0.5), f"print of {i}")
            for i in sorted(slide_ids)
        }
        self.timings = [("extraction", 2.0) for _ in slide_ids]
        return JobResult({})

    monkeypatch.setattr(Predictor, "run", run)
    return seen


def entries(config: PredictConfig) -> list[dict[str, Any]]:
    assert check_audit_log(config.out / "audit-log").problem == ""
    text = (config.out / "audit-log" / "audit-000001.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def given(config: PredictConfig) -> list[str]:
    return [entry["slide_id"] for entry in entries(config) if entry["event"] == "answer"]


def metric(config: PredictConfig, name: str) -> float:
    match = re.search(rf"(?m)^wsi_ncmi_{re.escape(name)} (\S+)$", (config.out / "metrics.prom").read_text())
    assert match, name
    return float(match[1])


def run(config: PredictConfig, events: Mapping[int, Any] | None = None) -> JobResult:
    clock = Clock()
    clock.events = dict(events or {})
    return watch(config, clock=clock.time, sleep=clock.sleep)


def test_real_slides_are_answered_logged_counted_and_handed_on(
    config: PredictConfig, small_slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_NCMI_OPERATOR", "pathology")
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\ncat "$1" >> {tmp_path}/taken\n')
    hook.chmod(0o755)
    config = replace(config, watch=replace(IDLE, on_answer=str(hook), metrics=tmp_path / "wsi.prom"))
    for name in ("s0", "empty"):
        shutil.copy(small_slides / f"{name}.svs", config.slides)
    (config.slides / "torn.svs").write_text("no slide")
    result = run(config)
    start, *answers = entries(config)
    assert (start["event"], start["configuration"]["unlike"]) == ("start", "abstain")
    of = {entry["slide_id"]: entry for entry in answers}
    assert {name: entry["answer"]["status"] for name, entry in of.items()} == {
        "s0": of["s0"]["answer"]["status"], "empty": "failed", "torn": "failed",
    }  # fmt: skip
    table = result.predictions.set_index("slide_id")
    assert of["s0"]["answer"]["decision"] == table.loc["s0", "decision"]
    assert of["s0"]["answer"]["confidence"] == pytest.approx(float(table.loc["s0", "confidence"]))
    assert re.fullmatch("[0-9a-f]{32}", of["s0"]["fingerprint"])
    for entry in answers:
        assert entry["operator"] == "pathology"
        assert entry["model"] == start["model"]
        assert entry["configuration_sha256"] == start["configuration_sha256"]
    for path in (config.out / "audit-log").glob("*.jsonl"):
        assert str(tmp_path) not in path.read_text()
    answer = json.loads((config.out / "answers" / "s0.json").read_text())
    assert answer["schema"] == "wsi-ncmi-answer/1"
    assert answer["audit"] == {"seq": of["s0"]["seq"], "sha256": of["s0"]["sha256"]}
    assert (tmp_path / "taken").read_text().count('"schema"') == 3
    text = (tmp_path / "wsi.prom").read_text()
    assert 'wsi_ncmi_answers_total{outcome="failed"} 2' in text
    assert 'wsi_ncmi_slides{state="quarantined"} 1' in text
    assert 'wsi_ncmi_stage_seconds_count{stage="prediction"} 1' in text
    assert result.files["audit_log"] == config.out / "audit-log"
    run(config)  # after a restart nothing is said twice
    assert [entry["event"] for entry in entries(config)] == ["start", *["answer"] * 3, "start"]
    assert (tmp_path / "taken").read_text().count('"schema"') == 3


def test_a_burst_is_answered_in_rounds_those_first_that_came_first(
    config: PredictConfig, drawn: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_MAX_ROUND", 2)
    config = replace(config, watch=WatchConfig(settle_s=15, until_idle_s=0))
    for name in ("c", "d", "e"):
        (config.slides / f"{name}.svs").touch()
    run(config, {1: lambda: (config.slides / "a.svs").touch()})
    assert drawn == [["c", "d"], ["e"], ["a"]]
    assert metric(config, 'answers_total{outcome="decided"}') == 4
    assert metric(config, 'slides{state="done"}') == 4
    assert metric(config, "queue_age_seconds") == 0
    # Waited until they rested: of the first at once, of the last until its own files had.
    assert metric(config, "answer_latency_seconds_count") == 4


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """Two models of the same classes and features, one of other classes, and what is none."""
    found = {"torn": tmp_path / "torn.zip"}
    found["torn"].write_text("no bundle")
    for name, heat, classes in (
        ("first", 2.0, ("negative", "tumour")), ("second", 3.0, ("negative", "tumour")), ("third", 2.0, ("a", "b")),
    ):  # fmt: skip
        folder = write_run(tmp_path / name / "ncmi", folds=1, width=WIDTH, classes=classes, **GRID)
        bundle = make_bundle(folder, reference=False)
        bundle = replace(bundle, calibration=replace(bundle.calibration, temperature=heat))
        found[name] = export(bundle, folder, tmp_path / f"{name}.zip")
    return found


def test_another_model_is_taken_into_use_between_rounds_and_back(
    config: PredictConfig, drawn: list[list[str]], models: dict[str, Path], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    current = tmp_path / "current"

    def use(name: str) -> None:
        (tmp_path / "next").symlink_to(models[name])
        (tmp_path / "next").rename(current)

    def arrive(name: str) -> None:
        (config.slides / f"{name}.svs").touch()

    use("first")
    for name in ("a", "b"):
        arrive(name)
    config = replace(config, model=current, watch=WatchConfig(settle_s=0, interval_s=1, until_idle_s=7))
    events = {
        1: lambda: use("second"), 3: lambda: arrive("c"), 4: lambda: use("torn"), 5: lambda: arrive("d"),
        6: lambda: use("first"), 8: lambda: arrive("e"), 10: lambda: use("third"),
    }  # fmt: skip
    run(config, events)
    said = [(each["event"], each.get("slide_id"), each["model"]["digest"]) for each in entries(config)]
    first, second, third = dict.fromkeys(digest for _, _, digest in said)
    assert said == [
        ("start", None, first), ("answer", "a", first), ("answer", "b", first),
        ("start", None, second), ("answer", "c", second), ("answer", "d", second),
        ("start", None, first), ("answer", "e", first),
        # Other classes are another question.
        ("start", None, third), *(("answer", name, third) for name in "abcde"),
    ]  # fmt: skip
    assert "The new model is not taken" in caplog.text


def table_of(config: PredictConfig) -> dict[str, dict[str, str]]:
    with (config.out / "predictions.csv").open(newline="") as handle:
        return {row["slide_id"]: row for row in csv.DictReader(handle)}


def test_tables_say_which_model_gave_each_answer(
    config: PredictConfig, models: dict[str, Path], small_slides: Path, tmp_path: Path
) -> None:
    cases = tmp_path / "cases.csv"
    cases.write_text("slide_id,case_id\ns0,p1\ns1,p1\n")
    config = replace(config, cases=cases)
    shutil.copy(small_slides / "s0.svs", config.slides)
    run(replace(config, model=models["first"]))
    before = table_of(config)["s0"]
    shutil.copy(small_slides / "s1.svs", config.slides)
    run(replace(config, model=models["second"]))
    first, second = (entry["model"]["digest"] for entry in entries(config) if entry["event"] == "answer")
    after = table_of(config)
    assert after["s0"] == before
    assert (after["s0"]["model_digest"], after["s1"]["model_digest"]) == (first, second)
    assert not (config.out / "history").exists()
    with (config.out / "patients.csv").open(newline="") as handle:
        (patient,) = csv.DictReader(handle)
    assert patient["decision"] == "abstain"
    assert "its slides were answered by 2 models" in patient["reason"]
    assert "answered by ncmi" in (config.out / "report.html").read_text()
    answers = Answers.read(config.out)
    assert answers.given_by(answers.slides["s0"]) == ("ncmi", first)
    assert (answers.row("s0")["by"], answers.row("s1")["by"]) == ("ncmi", "")


def test_tables_of_thousands_of_slides_cost_a_tenth_of_the_time(
    config: PredictConfig, drawn: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, written = Clock(), []

    def slowly(self: Predictor, predictions: Sequence[SlidePrediction]) -> JobResult:
        clock.now += 10
        written.append((clock.now - 1000, len(predictions)))
        return JobResult({})

    monkeypatch.setattr(Predictor, "write", slowly)
    for step in range(1, 32):
        clock.events[step] = (config.slides / f"s{step:02d}.svs").touch
    watch(
        replace(config, watch=WatchConfig(settle_s=0, interval_s=10, until_idle_s=20)),
        clock=clock.time, sleep=clock.sleep,
    )  # fmt: skip
    assert len(drawn) == 31
    assert written == [(20, 1), (120, 9), (220, 18), (320, 27), (380, 31)]  # 10 s of 100, and at the end


def test_a_kill_between_answer_and_tables_leaves_the_tables_to_the_next_start(
    config: PredictConfig, drawn: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    (config.slides / "a.svs").touch()
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "write", die)
        with pytest.raises(Died):
            run(config)
    assert given(config) == ["a"]
    assert not (config.out / "predictions.csv").exists()
    run(config)
    assert (len(drawn), list(table_of(config))) == (1, ["a"])
    assert given(config) == ["a"]


@pytest.mark.parametrize("signalled", [TerminatedError, KeyboardInterrupt])
def test_sigterm_and_ctrl_c_let_tables_follow_the_answers(
    config: PredictConfig,
    drawn: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    signalled: type[BaseException],
) -> None:
    def stop(*_: object) -> None:
        raise signalled

    (config.slides / "a.svs").touch()
    record = WatchedFolder.record
    monkeypatch.setattr(
        "wsi_ncmi.prediction.watch.WatchedFolder.record", lambda *arguments: (record(*arguments), stop())
    )
    if signalled is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            watch(config)
    else:
        assert watch(config).exit_code == 0
    assert list(table_of(config)) == ["a"]


@pytest.mark.parametrize("place", ["after the audit trail", "after the answer's file", "after all"])
def test_a_death_between_two_files_neither_loses_nor_repeats_an_answer(
    config: PredictConfig, drawn: list[list[str]], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (config.slides / "a.svs").touch()

    class Died(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        if place == "after the audit trail":
            patch.setattr("wsi_ncmi.service.service.Outbox.put", die)
        elif place == "after the answer's file":
            patch.setattr("wsi_ncmi.prediction.watch.WatchedFolder.record", die)
        else:
            record = watching.WatchedFolder.record
            patch.setattr("wsi_ncmi.prediction.watch.WatchedFolder.record", lambda *a: (record(*a), die()))
        with pytest.raises(Died):
            run(config)
    run(config)
    assert given(config) == ["a"]
    answer = json.loads((config.out / "answers" / "a.json").read_text())
    assert answer["audit"]["sha256"] == entries(config)[1]["sha256"]
    assert len(drawn) == (1 if place == "after all" else 2)


def test_sigterm_ends_with_success_and_ctrl_c_as_ever(
    config: PredictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise TerminatedError

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    result = watch(config := replace(config, watch=WatchConfig()), sleep=stop)
    assert (result.exit_code, "released" in result.notes[0]) == (0, True)
    (config.slides / "a.svs").touch()
    monkeypatch.setattr(Predictor, "run", stop)
    config = replace(config, watch=WatchConfig(settle_s=0))
    assert watch(config).exit_code == 0
    assert not (config.out / "watch.json").exists()  # it comes again
    with pytest.raises(KeyboardInterrupt):
        watch(replace(config, watch=WatchConfig()), sleep=interrupt)


def test_sigterm_within_a_slide_releases_it(
    config: PredictConfig, small_slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal itself, while a slide is extracted; the next start answers it."""
    shutil.copy(small_slides / "s0.svs", config.slides)
    prepare = pipeline.prepare_slide

    def stop(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        return prepare(*arguments)

    with monkeypatch.context() as patch, sigterm_as_interrupt():
        patch.setattr(pipeline, "prepare_slide", stop)
        assert watch(config).exit_code == 0
    assert given(config) == []
    assert not list(config.out.glob("features/*/.claims/[!.]*"))
    run(config)
    assert given(config) == ["s0"]


def test_a_service_says_that_it_lives_also_where_nothing_comes(
    config: PredictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "beat"
    monkeypatch.setenv(heartbeat.FILE_VARIABLE, str(file))
    monkeypatch.setattr(heartbeat, "_MIN_INTERVAL_S", 0.0)
    seen = []

    def look() -> None:
        seen.append(file.read_text().split()[0])
        file.unlink()

    check = Predictor.check_encoder

    def starting(self: Predictor) -> None:
        seen.append(file.read_text().split()[0])
        assert not heartbeat.state()[0]
        check(self)

    monkeypatch.setattr(Predictor, "check_encoder", starting)
    run(replace(config, watch=WatchConfig(interval_s=1, until_idle_s=3)), {1: look})
    assert seen == ["starting", "ready"]
    assert file.exists()


def test_what_is_wrong_is_told_before_the_first_slide(config: PredictConfig, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"end in \.prom alone"):
        WatchConfig(metrics=Path("metrics.txt"))
    with pytest.raises(InputError, match="no program 'nothing-here'"):
        run(replace(config, watch=replace(IDLE, on_answer="nothing-here")))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file is a file.*--metrics"):
        run(replace(config, watch=replace(IDLE, metrics=tmp_path / "file" / "x.prom")))
    with AuditLog(config.out / "audit-log"), pytest.raises(InputError, match="Another process writes"):
        run(config)
    (config.out / "audit-log" / "audit-000001.jsonl").write_text("x\n")
    with pytest.raises(InputError, match="keep it for the inquiry"):
        run(config)


def test_a_disk_that_fills_up_is_to_be_tried_again(
    config: PredictConfig, drawn: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1: with 2, which is for wrong settings, the unit would not start the service again."""
    (config.slides / "a.svs").touch()

    def full(*_: object) -> None:
        raise InputError("The disk is too small.")

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "run", full)
        with pytest.raises(JobStoppedError, match="too small"):
            run(config)
    run(config)
    assert given(config) == ["a"]


def test_flags_of_a_service_need_watch(config: PredictConfig, small_bundle: Path) -> None:
    base = ["predict", str(config.slides), "--model", str(small_bundle), "--out", str(config.out)]
    for flag in (
        ["--on-answer", "true"],
        ["--audit-log", "x"],
        ["--metrics", "x.prom"],
        ["--metrics-port", "0"],
    ):
        ended = CliRunner().invoke(app, [*base, *flag])
        assert (ended.exit_code, "add --watch" in ended.stderr) == (2, True)
