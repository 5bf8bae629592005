"""Extraction on one machine: in this process, or by supervised processes that may die."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Sequence

from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.encoders import Encoder, EncoderConfig, load_encoder
from wsi_ncmi.extraction.execution.bookkeeping import Bookkeeping, keeping_books
from wsi_ncmi.extraction.execution.crew import LocalCrew
from wsi_ncmi.extraction.execution.layout import Layout, can_use_gpu, limit_threads, plan_layout
from wsi_ncmi.extraction.execution.queue import SlideQueue
from wsi_ncmi.extraction.extraction import CLAIMED
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pipeline import Engine, Event, Finished, Load, SlotFree, Stopped
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.parallel.allocator import keep_large_buffers
from wsi_ncmi.parallel.gpus import visible_gpus
from wsi_ncmi.parallel.limits import available_cores, memory_limit

__all__ = ["run_slides"]

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0


def run_slides(
    tasks: Sequence[SlideTask],
    encoder_options: EncoderConfig,
    *,
    workers: int | None = 1,
    timeout_s: float | None = None,
    buffer_mib: int = 512,
    encoder: Encoder | None = None,
    progress: ProgressReporter | None = None,
    on_row: Callable[[LedgerRow], None] | None = None,
    on_load: Callable[[Load], None] | None = None,
) -> list[LedgerRow]:
    """Extracts slides, in this process or by supervised processes of their own.

    Every row goes to ``<out>/ledger.jsonl`` (fsynced) as it comes. Slides that another live job on the same
    output holds are waited for. On Ctrl-C or SIGTERM the workers end, unfinished files go, and the same call
    later goes on where it stopped.

    Args:
        tasks: The job.
        encoder_options: The encoder, loaded once by each worker.
        workers: Processes; 1 without a time limit works in this process, where a slide that kills its reader
            kills the job; None takes one a GPU, or what suits encoder and cores.
        timeout_s: Seconds after which a slide is given up (its process is killed); None waits for ever. Time
            in which a slide waits for others does not count.
        buffer_mib: Decoded pixels held between reading and encoding, all processes together.
        encoder: The same encoder, where it is loaded already; used when the work is done in this process.
        progress: Told about every slide, with tiles per second and the encoder's idle share.
        on_row: Called here with every row as it comes.
        on_load: Called once at the end with what the encoder had to do.

    Returns:
        One row a task, in the order of the tasks.

    Raises:
        InputError: The encoder can't be loaded, or a file of another identity stands in the way.
        JobStoppedError: The output can't be written to, or workers die before they can start.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    with keeping_books(tasks, progress, on_row, on_load) as books:
        if tasks:
            gpus = visible_gpus() if can_use_gpu(encoder_options) else ()
            layout = plan_layout(
                encoder_options, workers=workers, slides=len(tasks), cores=available_cores(),
                memory=memory_limit(), gpus=gpus, buffer_bytes=buffer_mib << 20,
            )  # fmt: skip
            if workers is not None and workers <= 1 and timeout_s is None:
                _run_here(tasks, encoder_options, encoder, layout, books)
            else:
                crew = LocalCrew(tasks, encoder_options, layout, timeout_s, books)
                try:
                    crew.run()
                finally:
                    crew.stop()
        return books.rows


def _run_here(
    tasks: Sequence[SlideTask],
    options: EncoderConfig,
    encoder: Encoder | None,
    layout: Layout,
    books: Bookkeeping,
) -> None:
    if ":" in options.name:
        keep_large_buffers()
    if encoder is None:
        encoder = load_encoder(options)
    threads_before = limit_threads(layout.threads)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    slides = SlideQueue(len(tasks))
    hunger = in_hand = 0
    try:
        with Engine(encoder, events.put, layout.engine) as engine:
            while slides or in_hand:
                while hunger and (index := slides.take()) is not None:
                    engine.submit(index, tasks[index])
                    hunger, in_hand = hunger - 1, in_hand + 1
                try:
                    event = events.get(timeout=_LOOK_S if slides.wait_s is None else slides.wait_s)
                except queue.Empty:
                    continue
                if isinstance(event, Stopped):
                    raise event.error
                if isinstance(event, SlotFree):
                    hunger += 1
                elif isinstance(event, Finished):
                    in_hand -= 1
                    if event.row.reason == CLAIMED:
                        slides.postpone(event.index)
                    else:
                        books.add(event.index, event.row, event.load)
    finally:
        if threads_before:
            limit_threads(threads_before)
