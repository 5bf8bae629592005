"""Extraction on one machine: in this process, or by supervised processes that may die."""

from __future__ import annotations

import contextlib
import queue
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.encoders import EncoderConfig, EncoderInfo
from wsi_ncmi.extraction.config import ExecutionConfig
from wsi_ncmi.extraction.execution.plan import ResourcePlan, can_use_gpu, plan_resources, with_stage
from wsi_ncmi.extraction.execution.recorder import recording
from wsi_ncmi.extraction.execution.worker import SlideWorker
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pipeline import Utilisation
from wsi_ncmi.extraction.staging import clean_stage
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.parallel import (
    Message,
    ProcessPool,
    WorkerHandle,
    WorkerPool,
    available_cores,
    memory_limit,
    visible_gpus,
)

_POLL_INTERVAL_S = 1.0


class ExtractionEngine(Protocol):
    """Extracts slides with one encoder, which is held by workers alone."""

    @property
    def encoder(self) -> EncoderInfo:
        """What the encoder is where it runs.

        Raises:
            InputError: It can't be loaded.
        """

    def run(
        self,
        tasks: Sequence[SlideTask],
        *,
        progress: ProgressReporter | None = None,
        on_row: Callable[[LedgerRow], None] | None = None,
        on_utilisation: Callable[[Utilisation], None] | None = None,
    ) -> list[LedgerRow]:
        """Extracts slides; may be called again.

        Every row goes to ``<out>/ledger.jsonl`` (fsynced) as it comes. Slides that another live job on the
        same output holds are waited for. On Ctrl-C or SIGTERM the workers end, unfinished files go, and the
        same call later resumes where it stopped.

        Args:
            tasks: The job.
            progress: Told about every slide, with tiles per second and the encoder's idle share.
            on_row: Called here with every row as it comes.
            on_utilisation: Called once at the end with what the encoder had to do.

        Returns:
            One row a task, in the order of the tasks.

        Raises:
            InputError: The encoder can't be loaded, or a file of another identity stands in the way.
            JobStoppedError: The output can't be written to, or workers die before they can start.
            KeyboardInterrupt: Ctrl-C or SIGTERM.
        """


@contextlib.contextmanager
def open_engine(config: ExecutionConfig, encoder: EncoderConfig) -> Iterator[ExtractionEngine]:
    """Makes an engine ready: this machine's processes, or the nodes of a Ray cluster.

    Args:
        config: Processes and time limits.
        encoder: The encoder.

    Raises:
        InputError: There is no such cluster.
    """
    if config.engine == "local":
        try:
            with LocalEngine(config, encoder) as engine:
                yield engine
        finally:
            if config.stage is not None:
                clean_stage(config.stage)  # worker processes end without it
        return
    from wsi_ncmi.extraction.execution.ray_cluster import connect
    from wsi_ncmi.extraction.execution.ray_pool import RayEngine

    with connect(config.ray_address) as cluster:
        yield RayEngine(cluster, config, encoder)


def run_slides(
    tasks: Sequence[SlideTask],
    encoder: EncoderConfig,
    *,
    workers: int | None = 1,
    timeout_s: float | None = None,
    progress: ProgressReporter | None = None,
    on_row: Callable[[LedgerRow], None] | None = None,
    on_utilisation: Callable[[Utilisation], None] | None = None,
) -> list[LedgerRow]:
    """Extracts slides on this machine, as :meth:`ExtractionEngine.run` does.

    Args:
        tasks: The job.
        encoder: The encoder, loaded once by each worker.
        workers: Processes; 1 without a time limit works in this process, where a slide that kills its reader
            kills the job; None takes one a GPU, or what suits encoder and cores.
        timeout_s: Seconds after which a slide is given up (its process is killed); None waits for ever. Time
            in which a slide waits for others does not count.
        progress: Told about every slide.
        on_row: Called here with every row as it comes.
        on_utilisation: Called once at the end with what the encoder had to do.

    Returns:
        One row a task, in the order of the tasks.

    Raises:
        InputError: As :meth:`ExtractionEngine.run`; so the others.
    """
    with LocalEngine(ExecutionConfig(workers=workers, timeout_per_slide=timeout_s), encoder) as engine:
        return engine.run(tasks, progress=progress, on_row=on_row, on_utilisation=on_utilisation)


class LocalEngine(contextlib.ExitStack):
    """Workers of this machine; a context manager that ends them.

    One worker without a time limit is this process itself, which then holds the encoder. Else worker
    processes hold it: the first one is started early, to tell what the encoder is, and works on the slides
    then.

    Args:
        config: Processes and time limits.
        encoder: The encoder.
    """

    def __init__(self, config: ExecutionConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        self._config, self._encoder = config, encoder
        self._here: SlideWorker | None = None
        self._waiting: ProcessPool | None = None
        self._info: EncoderInfo | None = None

    @property
    def encoder(self) -> EncoderInfo:
        """What the encoder is.

        Raises:
            InputError: It can't be loaded.
        """
        if self._info is None:
            if self._is_in_process:
                self._info = self._own_worker().info
            else:
                self._waiting = self.enter_context(self._pool(self._plan(sys.maxsize)))
                info: EncoderInfo = self._waiting.describe()
                self._info = info
        return self._info

    def run(
        self,
        tasks: Sequence[SlideTask],
        *,
        progress: ProgressReporter | None = None,
        on_row: Callable[[LedgerRow], None] | None = None,
        on_utilisation: Callable[[Utilisation], None] | None = None,
    ) -> list[LedgerRow]:
        """Extracts slides (:meth:`ExtractionEngine.run`)."""
        with recording(tasks, progress, on_row, on_utilisation) as recorder:
            if tasks:
                plan = self._plan(len(tasks))
                with self._pool_for(plan) as pool:
                    pool.run(recorder)
            return recorder.rows

    @property
    def _is_in_process(self) -> bool:
        return self._config.workers == 1 and self._config.timeout_per_slide is None

    def _own_worker(self) -> SlideWorker:
        if self._here is None:
            self._here = SlideWorker(self._encoder)
        return self._here

    def _gpus(self) -> tuple[str, ...]:
        return visible_gpus() if can_use_gpu(self._encoder) else ()

    def _plan(self, slides: int) -> ResourcePlan:
        plan = plan_resources(
            self._encoder, workers=self._config.workers, slides=slides, cores=available_cores(),
            memory=memory_limit(), gpus=len(self._gpus()), buffer_bytes=self._config.buffer_mib << 20,
        )  # fmt: skip
        return with_stage(plan, self._config.stage, self._config.stage_gib, plan.processes)

    def _pool(self, plan: ResourcePlan) -> ProcessPool:
        return ProcessPool(
            partial(SlideWorker, self._encoder), size=plan.processes, threads=plan.threads, gpus=self._gpus(),
            config=plan, timeout_s=self._config.timeout_per_slide,
        )  # fmt: skip

    def _pool_for(self, plan: ResourcePlan) -> WorkerPool[Any]:
        if self._is_in_process:
            return _OwnPool(self._own_worker(), plan)
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return self._pool(plan)
        if waiting.config.threads != plan.threads:  # which some libraries read once, when they are loaded
            waiting.stop()
            return self._pool(plan)
        waiting.size, waiting.config = plan.processes, plan
        return waiting


class _OwnPool(WorkerPool["_OwnWorker"]):
    """A pool of one worker in this process."""

    def __init__(self, worker: SlideWorker, plan: ResourcePlan) -> None:
        super().__init__()
        self._worker, self._plan = worker, plan

    def _slots(self) -> Iterable[int]:
        return (0,)

    def _spawn(self, number: int) -> _OwnWorker:
        return _OwnWorker(self._worker, self._plan)

    def _poll(self, timeout_s: float | None) -> Sequence[_OwnWorker]:
        patience = _POLL_INTERVAL_S if timeout_s is None else timeout_s
        return [worker for worker in self._workers if worker.wait(patience)]

    def _clean_up(self, worker: _OwnWorker) -> None:
        """Nothing: an aborted pipeline leaves no trace."""


class _OwnWorker(WorkerHandle):
    def __init__(self, worker: SlideWorker, plan: ResourcePlan) -> None:
        super().__init__(0)
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._next: list[Message] = []
        self._worker, self.info, self.ready = worker, worker.info, True
        worker.begin(plan, self._messages.put)

    def wait(self, timeout_s: float) -> bool:
        with contextlib.suppress(queue.Empty):
            self._next.append(self._messages.get(timeout=timeout_s))
        return bool(self._next)

    def receive(self) -> list[Message]:
        messages, self._next = self._next, []
        return messages

    def end(self, *, kill: bool = False) -> str:
        self._worker.end(abort=kill)
        return ""

    def _send(self, index: int, item: SlideTask) -> None:
        self._worker.submit(index, item)
