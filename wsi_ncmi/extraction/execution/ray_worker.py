"""The worker on another machine, which checks that machine first and is asked for its messages."""

import logging
import queue
import time
from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.encoders import EncoderConfig, EncoderInfo, load_encoder
from wsi_ncmi.extraction.claims import clean_up
from wsi_ncmi.extraction.execution.plan import WorkerSlot, plan_resources, with_stage
from wsi_ncmi.extraction.execution.worker import SlideWorker
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.parallel import ForwardHandler, Message, Ready, Stopped, memory_limit

# A shared folder may show a new file late: network file systems remember for a while what was not there.
_SHARED_PATIENCE_S = 30.0
_POLL_S = 20.0


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker is told when it starts.

    Attributes:
        encoder: The encoder.
        info: What that encoder is, as the whole job takes it.
        slot: Its cores, its GPU, the workers beside it.
        buffer_bytes: Decoded pixels that all workers of its node together may hold.
        slides: Slides of the job.
        version: The version of this program that hands out the work.
        sources: A path that has to be there: the slides.
        probe: A file that the job's driver has just written into the output folder.
        stage: Folder of each node to which slides are copied first.
        stage_gib: GiB of slides in it at a time.
    """

    encoder: EncoderConfig
    info: EncoderInfo
    slot: WorkerSlot
    buffer_bytes: int
    slides: int
    version: str
    sources: Path
    probe: Path
    stage: Path | None = None
    stage_gib: float | None = None


class RemoteWorker:
    """A slide worker in a process that a cluster runs; every method may be called from another thread."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._worker: SlideWorker | None = None

    def start(self, config: WorkerConfig) -> EncoderInfo | Stopped:
        """Loads the encoder and starts the pipeline.

        Returns:
            What the encoder is, or why this machine can't work on the job.
        """
        try:
            return self._start(config)
        except WsiNcmiError as error:
            return Stopped(error)

    def submit(self, index: int, task: SlideTask) -> None:
        """Hands a slide in, one for each ``SlotFree``."""
        if self._worker is not None:
            self._worker.submit(index, task)

    def poll(self, patience_s: float = _POLL_S) -> list[Message]:
        """Waits for messages, so long at most, and gives all that there are."""
        messages: list[Message] = []
        try:
            messages.append(self._messages.get(timeout=patience_s))
            while True:
                messages.append(self._messages.get_nowait())
        except queue.Empty:
            return messages

    def abort(self) -> None:
        """Gives up what is in flight; no claim and no temporary file stays."""
        if self._worker is not None:
            self._worker.end(abort=True)

    def _start(self, config: WorkerConfig) -> EncoderInfo:
        if config.version != __version__:
            raise InputError(
                f"it has wsi-ncmi {__version__}, and the job was started with {config.version}; install the "
                "same version on every node"
            )
        if not config.sources.exists():
            raise InputError("it does not see the slide folder; mount it under the same path on every node")
        _wait_for(config.probe)
        slot = config.slot
        plan = plan_resources(
            config.encoder, workers=1, slides=config.slides, cores=max(1, slot.cores),
            memory=memory_limit() // slot.workers_on_node, gpus=int(slot.gpu),
            buffer_bytes=config.buffer_bytes // slot.workers_on_node,
        )  # fmt: skip
        plan = with_stage(plan, config.stage, config.stage_gib, slot.workers_on_node)
        worker = SlideWorker(config.encoder)
        if differs := config.info.difference(worker.info):
            raise InputError(f"its encoder would give other numbers ({differs})")
        worker.begin(plan, self._messages.put)
        self._worker = worker
        return worker.info


def describe(encoder: EncoderConfig) -> list[Message]:
    """Loads the encoder on the machine that this runs on.

    Returns:
        What was logged (``Logged``), then ``Ready`` with what the encoder is, or ``Stopped``.
    """
    messages: list[Message] = []
    logger, handler = logging.getLogger("wsi_ncmi"), ForwardHandler(messages.append)
    logger.addHandler(handler)
    try:
        messages.append(Ready(load_encoder(encoder).info))
    except WsiNcmiError as error:
        messages.append(Stopped(error))
    finally:
        logger.removeHandler(handler)
    return messages


def release(tasks: list[SlideTask], encoder_name: str, patience_s: float = 10.0) -> None:
    """Removes what a dead worker of this machine left of its slides.

    Args:
        tasks: What it had in flight.
        encoder_name: The encoder.
        patience_s: How long the process may take to be gone.
    """
    deadline = time.monotonic() + patience_s
    while tasks:
        for task in tasks:
            clean_up(task, encoder_name)
        tasks = [task for task in tasks if not task.record.problem and task.claim_path(encoder_name).exists()]
        if time.monotonic() > deadline:
            return
        if tasks:
            time.sleep(0.2)


def _wait_for(probe: Path) -> None:
    deadline = time.monotonic() + _SHARED_PATIENCE_S
    while not probe.exists():
        if time.monotonic() > deadline:
            raise InputError(
                "it does not see the output folder that the job writes to; mount it under the same path on "
                "every node"
            )
        time.sleep(0.5)
