"""Workers on the nodes of a Ray cluster, which may lose processes and nodes, and gain nodes, during a job."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import IdentityConflictError, WsiNcmiError
from wsi_ncmi.core.files import TEMPORARY_SUFFIX
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.encoders import EncoderConfig, EncoderInfo
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.extraction.execution.plan import WorkerSlot, plan_slots
from wsi_ncmi.extraction.execution.ray_cluster import RayCluster
from wsi_ncmi.extraction.execution.ray_worker import RemoteWorker, WorkerConfig, release
from wsi_ncmi.extraction.execution.recorder import recording
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pipeline import Utilisation
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.storage import translate_os_errors
from wsi_ncmi.parallel import Message, Ready, Stopped, WorkerHandle, WorkerPool

_LOG = logging.getLogger(__name__)
_POLL_INTERVAL_S = 2.0
_WARN_INTERVAL_S = 60.0
_ABORT_S = 9.0
# start or submit, poll, abort, and one to spare: none may wait for another.
_THREADS = 4


class RayEngine:
    """Extracts slides with workers on all nodes (an ``ExtractionEngine``).

    Claims, feature files and the journal are those of a local run, so a job may be begun here and finished
    there, and the driver may be killed at any moment. All nodes see the folders under the same paths.

    Args:
        cluster: The cluster.
        config: Processes and time limits.
        encoder: The encoder.
    """

    def __init__(self, cluster: RayCluster, config: ExecutionConfig, encoder: EncoderConfig) -> None:
        self._cluster, self._config, self._encoder = cluster, config, encoder

    @cached_property
    def encoder(self) -> EncoderInfo:
        """What the encoder is on a node; every worker has to agree.

        Raises:
            InputError: The cluster has no room for a worker, or the encoder can't be loaded there.
        """
        return self._cluster.describe(_absolute_weights(self._encoder))

    def run(
        self,
        tasks: Sequence[SlideTask],
        *,
        progress: ProgressReporter | None = None,
        on_row: Callable[[LedgerRow], None] | None = None,
        on_utilisation: Callable[[Utilisation], None] | None = None,
    ) -> list[LedgerRow]:
        """Extracts slides (``ExtractionEngine.run``).

        Raises:
            InputError: No node can work on the job.
            JobStoppedError: The output can't be written to, or the cluster is gone.
        """
        todo = [_absolute(task) for task in tasks]
        with recording(todo, progress, on_row, on_utilisation) as recorder:
            if todo:
                with _probe(todo[0].out) as probe:
                    config = WorkerConfig(
                        _pinned(self._encoder, self.encoder), self.encoder, WorkerSlot("", 0, 1, False, 1),
                        self._config.buffer_mib << 20, len(todo), __version__, todo[0].root, probe,
                        self._config.stage and self._config.stage.absolute(), self._config.stage_gib,
                    )  # fmt: skip
                    timeout_s = self._config.timeout_per_slide
                    with RayPool(self._cluster, config, self._config.workers, timeout_s) as pool:
                        pool.run(recorder)
            return recorder.rows


class RayPool(WorkerPool["RayWorker"]):
    """A pool whose slots are those of the nodes that are alive at the moment.

    A node on which a worker can't start, or can't work on while others can, is left out for the rest of the
    job. Slides of a node that was lost are no suspects; Ray lists such a node as alive for some seconds, and
    calls its workers unavailable until it knows.

    Args:
        cluster: The cluster.
        config: What every worker is told; its slot is filled in here.
        workers: Most workers altogether; None: one in every slot.
        timeout_s: Seconds that a slide may take of its own; None: for ever.
    """

    def __init__(
        self, cluster: RayCluster, config: WorkerConfig, workers: int | None, timeout_s: float | None
    ) -> None:
        super().__init__(timeout_s)
        self._cluster, self._config, self._max_workers = cluster, config, workers
        self._numbers: dict[tuple[str, int], int] = {}
        self._by_number: dict[int, WorkerSlot] = {}
        self._left_out: dict[str, WsiNcmiError] = {}
        self._listed = -_POLL_INTERVAL_S
        self._warned = time.monotonic()
        self._now: list[int] = []

    def stop(self) -> None:
        """Lets all workers give up at the same time, then ends them."""
        ready = [worker for worker in self._workers if worker.ready]
        if ready:
            ready[0].wait_for([worker.begin_to_abort() for worker in ready])
        for worker in self._workers:
            worker.end(kill=True)
        self._workers.clear()

    def _slots(self) -> Iterable[int]:
        if time.monotonic() - self._listed >= _POLL_INTERVAL_S:
            self._listed = time.monotonic()
            nodes = [node for node in self._cluster.nodes() if node.identity not in self._left_out]
            slots = plan_slots(nodes, self._config.encoder, workers=self._max_workers)
            self._now = [self._number(slot) for slot in slots]
            if self._now or self._workers:
                self._warned = time.monotonic()
            elif self._left_out:
                raise next(iter(self._left_out.values()))
            elif time.monotonic() - self._warned > _WARN_INTERVAL_S:
                self._warned = time.monotonic()
                _LOG.warning("No node of the cluster has room for a worker; waiting for one.")
        return self._now

    def _number(self, slot: WorkerSlot) -> int:
        number = self._numbers.setdefault((slot.node, slot.number), len(self._numbers))
        self._by_number[number] = slot
        return number

    def _spawn(self, number: int) -> RayWorker:
        slot = self._by_number[number]
        return RayWorker(self._cluster.ray, number, replace(self._config, slot=slot))

    def _poll(self, timeout_s: float | None) -> Sequence[RayWorker]:
        # Nodes come and go without a word: the cluster is looked at in between.
        patience = _POLL_INTERVAL_S if timeout_s is None else min(timeout_s, _POLL_INTERVAL_S)
        if not self._workers:
            time.sleep(patience)
            return []
        calls = {worker.call: worker for worker in self._workers}
        ready, _ = self._cluster.ray.wait(list(calls), num_returns=1, timeout=patience)
        if ready:  # whatever else is there by now
            ready, _ = self._cluster.ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return [calls[one] for one in ready]

    def _is_crash_suspect(self, worker: RayWorker) -> bool:
        if not worker.is_unreachable and worker.slot.node in self._alive():
            return True
        _LOG.warning("A node of the cluster is gone; its slides are worked on elsewhere.")
        self._listed = -_POLL_INTERVAL_S
        return False

    def _halt(self, worker: RayWorker, error: WsiNcmiError) -> None:
        if isinstance(error, IdentityConflictError):
            raise error
        name = self._cluster.name_of(worker.slot.node)
        reason = str(error).rstrip(".")
        _LOG.warning("The node %s is left out of the job: %s.", name, reason)
        self._left_out[worker.slot.node] = type(error)(
            f"No node of the cluster can work on the job; {name}: {reason}."
        )
        self._listed = -_POLL_INTERVAL_S
        for other in [other for other in self._workers if other.slot.node == worker.slot.node]:
            self._terminate(other, kill=False)
            self._put_back(other)

    def _clean_up(self, worker: RayWorker) -> None:
        """On the worker's own node, which alone knows that it is gone; a lost node's claims lapse."""
        if worker.in_flight and worker.slot.node in self._alive():
            tasks = [self._job.items[index] for index in worker.in_flight]
            self._cluster.on_node(worker.slot.node, release, tasks, self._config.info.name)

    def _alive(self) -> set[str]:
        return {node.identity for node in self._cluster.nodes()}


class RayWorker(WorkerHandle):
    """An actor with one outstanding call, whose end is its news.

    Args:
        ray: The module.
        number: Number of its slot in the pool.
        config: What it is told.

    Attributes:
        slot: Where it runs.
        is_unreachable: Whether its end was a lost connection, and not the death of its process.
        call: The outstanding call: its start, then its messages.
    """

    def __init__(self, ray: Any, number: int, config: WorkerConfig) -> None:
        super().__init__(number)
        self._ray = ray
        self.slot = config.slot
        self._how = "its process ended"
        self.is_unreachable = False
        where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(self.slot.node, soft=False)
        self._actor = (
            ray.remote(RemoteWorker)
            .options(
                num_cpus=self.slot.cores, num_gpus=int(self.slot.gpu), max_concurrency=_THREADS,
                max_restarts=0, scheduling_strategy=where,
            )
            .remote()
        )  # fmt: skip
        self.call: Any = self._actor.start.remote(config)

    def receive(self) -> list[Message]:
        """``Ready`` once, then its messages; ``Stopped`` where its machine can't do the job."""
        try:
            result = self._ray.get(self.call)
        except self._ray.exceptions.RayError as error:
            self._how = " ".join(str(error).split())[:200] or type(error).__name__
            self.is_unreachable = isinstance(error, self._ray.exceptions.ActorUnavailableError)
            raise EOFError from error
        if isinstance(result, Stopped):
            return [result]
        self.call = self._actor.poll.remote()
        return [Ready(result)] if isinstance(result, EncoderInfo) else result

    def end(self, *, kill: bool = False) -> str:
        """Ends the actor; when not killed it has some seconds to release what it holds."""
        if not kill:
            self.wait_for([self.begin_to_abort()])
        with contextlib.suppress(Exception):  # it may be dead, or its node gone
            self._ray.kill(self._actor, no_restart=True)
        return self._how

    def begin_to_abort(self) -> Any:
        """Asks it to give up what it has in flight; gives the call to wait for."""
        return self._actor.abort.remote()

    def wait_for(self, calls: list[Any]) -> None:
        """Waits until the calls have ended somehow, some seconds at most."""
        if calls:
            self._ray.wait(calls, num_returns=len(calls), timeout=_ABORT_S)

    def _send(self, index: int, item: SlideTask) -> None:
        self._actor.submit.remote(index, item)


def _absolute(task: SlideTask) -> SlideTask:
    """The task for a process that has another working directory."""
    drawn = task.annotations
    if drawn is not None and drawn.path is not None:
        drawn = replace(drawn, path=drawn.path.absolute())
    config = replace(task.config, slides=task.root.absolute(), out=task.out.absolute())
    return replace(task, config=config, annotations=drawn)


def _absolute_weights(encoder: EncoderConfig) -> EncoderConfig:
    return encoder if encoder.weights is None else replace(encoder, weights=encoder.weights.absolute())


def _pinned(encoder: EncoderConfig, info: EncoderInfo) -> EncoderConfig:
    """The encoder with everything that a node could decide by itself already decided."""
    return replace(
        _absolute_weights(encoder),
        device="cuda" if "cuda" in info.backend else "cpu",
        precision=cast(Literal["fp32", "bf16", "fp16"], info.precision),
        batch_size=info.batch_size or encoder.batch_size,
    )


@contextlib.contextmanager
def _probe(out: Path) -> Iterator[Path]:
    """A file in the output folder by which a node can tell that it sees the same folder."""
    path = out / f".cluster-{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    with translate_os_errors(path):
        out.mkdir(parents=True, exist_ok=True)
        path.touch()
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
