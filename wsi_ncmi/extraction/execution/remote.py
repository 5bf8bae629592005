"""The worker on another machine: the same engine as a local one, asked for its events instead of a pipe."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass
from pathlib import Path

from wsi_ncmi import __version__
from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.encoders import EncoderConfig, EncoderInfo, load_encoder
from wsi_ncmi.extraction.execution.layout import NUMPY, limit_threads, plan_layout
from wsi_ncmi.extraction.execution.places import Place
from wsi_ncmi.extraction.extraction import clean_up
from wsi_ncmi.extraction.pipeline import Engine, Event, Stopped
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.parallel.allocator import keep_large_buffers
from wsi_ncmi.parallel.limits import memory_limit

__all__ = ["Order", "RemoteWorker", "describe", "release"]

# A shared folder may show a new file late: network file systems remember for a while what was not there.
_SHARED_PATIENCE_S = 30.0
_POLL_S = 20.0


@dataclass(frozen=True)
class Order:
    """What a worker is told when it starts.

    Attributes:
        options: The encoder.
        card: What that encoder is, as the whole job takes it.
        place: Its cores, its GPU, its mates.
        buffer_bytes: Decoded pixels that all workers of its node together may hold.
        slides: Slides of the job.
        version: The version of this program that hands out the work.
        sources: A path that has to be there: the slides.
        probe: A file that the job's driver has just written into the output folder.
    """

    options: EncoderConfig
    card: EncoderInfo
    place: Place
    buffer_bytes: int
    slides: int
    version: str
    sources: Path
    probe: Path


class RemoteWorker:
    """An engine in a process that a cluster runs; every method may be called from another thread."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._engine: Engine | None = None

    def start(self, order: Order) -> EncoderInfo | Stopped:
        """Loads the encoder and starts the engine.

        Returns:
            What the encoder is, or why this machine can't work on the job.
        """
        try:
            card = self._start(order)
        except WsiNcmiError as error:
            return Stopped(error)
        return card

    def submit(self, index: int, task: SlideTask) -> None:
        """Hands a slide in, one for each ``SlotFree``."""
        if self._engine is not None:
            self._engine.submit(index, task)

    def poll(self, patience_s: float = _POLL_S) -> list[Event]:
        """Waits for events, so long at most, and gives all that there are."""
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=patience_s))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def abort(self) -> None:
        """Gives up what is in hand; no claim and no temporary file stays."""
        if self._engine is not None:
            self._engine.abort()

    def _start(self, order: Order) -> EncoderInfo:
        if order.version != __version__:
            raise InputError(
                f"it has wsi-ncmi {__version__}, and the job was started with {order.version}; install the "
                "same version on every node"
            )
        if not order.sources.exists():
            raise InputError("it does not see the slide folder; mount it under the same path on every node")
        _wait_for(order.probe)
        place, options = order.place, order.options
        if options.name != NUMPY:
            keep_large_buffers()
        layout = plan_layout(
            options, workers=1, slides=order.slides, cores=max(1, place.cores),
            memory=memory_limit() // place.mates, gpus=("",) if place.gpu else (),
            buffer_bytes=order.buffer_bytes // place.mates,
        )  # fmt: skip
        encoder = load_encoder(options)
        limit_threads(layout.threads)
        card = encoder.info
        if differs := order.card.difference(card):
            raise InputError(f"its encoder would give other numbers ({differs})")
        self._engine = Engine(encoder, self._events.put, layout.engine)
        self._engine.__enter__()
        return card


def describe(options: EncoderConfig) -> EncoderInfo | Stopped:
    """What the encoder is on the machine that this runs on, or why it can't be loaded there."""
    try:
        return load_encoder(options).info
    except WsiNcmiError as error:
        return Stopped(error)


def release(tasks: list[SlideTask], encoder_name: str, patience_s: float = 10.0) -> None:
    """Removes what a dead worker of this machine left of its slides.

    Args:
        tasks: What it had in hand.
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
