"""Nodes that differ, go, come or stop, on a cluster of threads, so that every case comes at will.

``test_ray.py`` has the real one.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wsi_ncmi.core.errors import InputError, JobStoppedError
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.extraction.execution import ray_pool, ray_worker
from wsi_ncmi.extraction.execution.ray_cluster import RayCluster
from wsi_ncmi.extraction.execution.ray_pool import RayEngine
from wsi_ncmi.extraction.execution.ray_worker import RemoteWorker, WorkerConfig
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features import verify_folder
from wsi_ncmi.parallel import Started, Stopped

OPTIONS = EncoderConfig(device="cpu", precision="fp32", batch_size=16)
INFO = load_encoder(OPTIONS).info


class LostError(Exception):
    """Stands for Ray's errors."""


class UnavailableError(LostError):
    """Stands for the one of an actor whose connection is lost, of which it is not yet known that it is dead."""


class Actor:
    """A worker on a node; its calls are futures that break when it is lost."""

    def __init__(self, ray: ThreadRay, node: str) -> None:
        self.ray, self.node, self.worker = ray, node, RemoteWorker()
        self.alive = True
        self.calls: list[concurrent.futures.Future[Any]] = []

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self.call(name, arguments))

    def call(self, name: str, arguments: tuple[Any, ...]) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.calls.append(future)
        if not self.alive:
            future.set_exception(LostError("the actor is dead"))
            return future

        def act() -> None:
            result = self.ray.change(self.node, name, getattr(self.worker, name), arguments)
            if not future.done():
                future.set_result(result)

        threading.Thread(target=act, daemon=True).start()
        return future

    def lose(self, error: LostError | None = None) -> None:
        """The end of its process: what it holds is free, what it was asked breaks."""
        self.alive = False
        self.worker.abort()
        for future in self.calls:
            if not future.done():
                future.set_exception(error or LostError("the actor died"))


class ThreadRay:
    """As much of Ray as a pool asks for.

    Args:
        nodes: Cores by node.
        change: Calls a worker's method; a test may give another answer or do something on the way.
    """

    exceptions = SimpleNamespace(RayError=LostError, ActorUnavailableError=UnavailableError)
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(
            NodeAffinitySchedulingStrategy=lambda node, soft: SimpleNamespace(node=node)
        )
    )

    def __init__(self, nodes: dict[str, int], change: Callable[..., Any] | None = None) -> None:
        self.cores = nodes
        self.actors: list[Actor] = []
        self.change = change or (lambda node, name, method, arguments: method(*arguments))

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": name,
                "Alive": cores > 0,
                "NodeManagerHostname": f"host-{name}",
                "Resources": {"CPU": cores},
            }
            for name, cores in self.cores.items()
        ]

    def lose(self, node: str) -> None:
        self.cores[node] = 0
        for actor in self.actors:
            if actor.node == node:
                actor.lose()

    def remote(self, thing: Any) -> Any:
        def options(**settings: Any) -> Any:
            def start(*arguments: Any) -> Any:
                if not isinstance(thing, type):
                    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
                    future.set_result(thing(*arguments))
                    return future
                node = settings["scheduling_strategy"].node
                self.actors.append(Actor(self, node))
                return self.actors[-1]

            return SimpleNamespace(remote=start)

        return SimpleNamespace(options=options)

    @staticmethod
    def wait(calls: list[Any], num_returns: int = 1, timeout: float = 0.0) -> tuple[list[Any], list[Any]]:
        until = concurrent.futures.FIRST_COMPLETED if num_returns == 1 else concurrent.futures.ALL_COMPLETED
        done = concurrent.futures.wait(calls, timeout, until).done
        return [call for call in calls if call in done], [call for call in calls if call not in done]

    @staticmethod
    def get(call: Any) -> Any:
        return call.result()

    @staticmethod
    def kill(actor: Actor, no_restart: bool) -> None:
        actor.lose()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "_POLL_INTERVAL_S", 0.05)
    monkeypatch.setattr(ray_worker, "_SHARED_PATIENCE_S", 0.0)
    monkeypatch.setattr(ray_worker, "_POLL_S", 0.5)


def run(ray: ThreadRay, tasks: list[SlideTask], progress: Any = None, **more: Any) -> list[tuple[str, str]]:
    engine = RayEngine(RayCluster(ray), ExecutionConfig(**more), OPTIONS)
    engine.__dict__["encoder"] = INFO  # a job starts when a first node is there, and some here never have one
    rows = engine.run(tasks, progress=progress)
    assert [row.slide_id for row in rows] == [task.record.slide_id for task in tasks]
    assert not list(tasks[0].out.rglob("*.partial"))
    assert not [path for path in tasks[0].out.rglob(".claims/*") if path.is_file()]
    return [(row.status, row.reason) for row in rows]


def whole(out: Path) -> int:
    verdicts = verify_folder(out)
    assert all(verdict.ok for verdict in verdicts)
    return len(verdicts)


def test_all_nodes_work_and_every_slide_is_done(tasks) -> None:
    ray, todo = ThreadRay({"a": 1, "b": 1}), tasks()
    assert run(ray, todo) == [("done", "")] * 4
    assert {actor.node for actor in ray.actors} == {"a", "b"}
    assert whole(todo[0].out) == 4
    assert run(ThreadRay({"a": 1}), todo, workers=1) == [("skipped", "already extracted")] * 4


def test_the_driver_shows_the_progress_of_all_nodes(tasks) -> None:
    told: list[tuple[str, float]] = []

    class Recorder:
        @contextlib.contextmanager
        def task(self, description: str, total: float, unit: str = "") -> Iterator[Any]:
            told.append((unit, total))
            yield SimpleNamespace(advance=lambda amount=1, note="", **_: told.append(("advance", amount)))

    run(ThreadRay({"a": 1, "b": 1}), tasks(), progress=Recorder())
    assert told == [("slides", 4), *[("advance", 1)] * 4]


def test_a_node_that_does_not_see_the_output_is_left_out(tasks, caplog: pytest.LogCaptureFixture) -> None:
    def blind(node: str, name: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if node == "b" and name == "start":
            config: WorkerConfig = arguments[0]
            return method(replace(config, probe=Path("/nowhere")))
        return method(*arguments)

    ray = ThreadRay({"a": 1, "b": 2}, blind)
    assert run(ray, tasks()) == [("done", "")] * 4
    assert "The node host-b is left out of the job: it does not see the output folder" in caplog.text
    assert sum(actor.node == "b" for actor in ray.actors) <= 2  # it is not tried for ever


def test_where_no_node_can_work_the_first_reason_is_told(tasks) -> None:
    ray = ThreadRay({"a": 1, "b": 1}, lambda node, name, method, arguments: (
        method(replace(arguments[0], version="0.0.0")) if name == "start" else method(*arguments)
    ))  # fmt: skip
    with pytest.raises(
        InputError, match=r"No node of the cluster can work on the job; host-.*install the same"
    ):
        run(ray, tasks())


def test_slides_of_lost_nodes_are_no_suspects(tasks) -> None:
    ray: ThreadRay
    lost: set[str] = set()

    def lose(node: str, name: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        events = method(*arguments)
        if (
            name == "poll"
            and node != "a"
            and node not in lost
            and any(isinstance(e, Started) for e in events)
        ):
            lost.add(node)
            # The next node comes with the end of this one, and its first slide is the same.
            ray.lose(node)
            ray.cores["a" if node == "d" else chr(ord(node) + 1)] = 1
        return events

    ray = ThreadRay({"b": 1}, lose)
    todo = tasks()
    rows = run(ray, todo)
    assert lost == {"b", "c", "d"}
    assert {status for status, _ in rows} == {"done"}
    assert whole(todo[0].out) == 4


def test_slides_of_a_node_that_is_lost_but_still_listed_are_no_suspects(tasks) -> None:
    """A real cluster lists a lost node for ten seconds, in which its workers are said to be unavailable."""
    lost: list[int] = []

    def lose(node: str, name: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        events = method(*arguments)
        if name == "poll" and len(lost) < 3 and any(isinstance(event, Started) for event in events):
            lost.append(len(ray.actors))
            ray.actors[-1].lose(UnavailableError("the actor is unavailable"))
        return events

    ray = ThreadRay({"a": 1}, lose)
    todo = tasks()
    assert {status for status, _ in run(ray, todo)} == {"done"}
    assert len(lost) == 3
    assert whole(todo[0].out) == 4


def test_a_job_waits_for_a_first_node_and_takes_those_that_join(tasks) -> None:
    ray = ThreadRay({})
    threading.Timer(0.3, lambda: ray.cores.update(a=1)).start()
    assert run(ray, tasks()) == [("done", "")] * 4
    assert [actor.node for actor in ray.actors] == ["a"]


def test_a_node_that_can_not_go_on_gives_its_slides_to_others(
    tasks, caplog: pytest.LogCaptureFixture
) -> None:
    def full(node: str, name: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        events = method(*arguments)
        if node == "b" and name == "poll" and any(isinstance(event, Started) for event in events):
            return [*events, Stopped(JobStoppedError("There is no space left."))]
        return events

    rows = run(ThreadRay({"a": 1, "b": 1}, full), tasks())
    assert {status for status, _ in rows} == {"done"}
    assert "host-b is left out of the job: There is no space left" in caplog.text


@dataclass(frozen=True)
class HangingTask(SlideTask):
    """A slide on slow storage."""

    @property
    def files(self) -> Path:
        threading.Event().wait()
        raise AssertionError("unreachable")


def test_an_overdue_slide_is_given_up(tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsi_ncmi.extraction.pipeline import pipeline as engine

    monkeypatch.setattr(engine, "_ABORT_S", 0.2)  # a killed process waits for no thread
    first, *rest = tasks()
    hanging = HangingTask(first.record, first.config)
    rows = run(ThreadRay({"a": 1}), [hanging, *rest], timeout_per_slide=3.0)
    assert [status for status, _ in rows] == ["failed", "done", "done", "done"]
    assert "longer than 3 s" in rows[0][1]


def test_a_cluster_that_does_not_answer_stops_the_job(tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> list[dict[str, Any]]:
        raise ConnectionError("no route")

    ray = ThreadRay({"a": 1})
    monkeypatch.setattr(ray, "nodes", gone)
    with pytest.raises(JobStoppedError, match="does not answer any more"):
        run(ray, tasks())


def test_a_cluster_without_cores_is_refused() -> None:
    with pytest.raises(InputError, match="lends a core or a GPU"):
        RayCluster(ThreadRay({"a": 0})).describe(OPTIONS)
    assert RayCluster(ThreadRay({"a": 1})).describe(OPTIONS) == INFO
