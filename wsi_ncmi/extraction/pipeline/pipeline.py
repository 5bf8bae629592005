"""Pipeline of one process: readers, encoder threads and a writer work on many slides at once.

    submit ─▶ readers ─▶ batcher ─▶ encoder threads ─▶ writer ─▶ Finished
              claim, open, batches    encoder            files, claim released
              tissue,      of one     (CPU threads or
              decoded tiles shape     one CUDA device)

With a stage folder, a thread claims and copies the next slides while others are read: at most as many wait as
there are readers. Between readers and encoder threads, bytes of pixels are bounded; so are those of features
of slides that are not published. A tile's vector depends on the tile alone, so it does not matter which tiles
share its batch.
"""

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from wsi_ncmi.core.errors import IdentityConflictError, JobStoppedError, WsiNcmiError
from wsi_ncmi.encoders import Encoder
from wsi_ncmi.extraction.claims import claim_slide
from wsi_ncmi.extraction.execution.plan import PipelineConfig
from wsi_ncmi.extraction.ledger import LedgerRow
from wsi_ncmi.extraction.pipeline.batching import Batch, TileBatcher, TileChunk, begin_batch
from wsi_ncmi.extraction.pipeline.reading import ClosedError, MemoryBudget, read_tiles_of
from wsi_ncmi.extraction.pipeline.slide_work import SlideWork
from wsi_ncmi.extraction.pipeline.utilisation import Utilisation, UtilisationMeter
from wsi_ncmi.extraction.publishing import done_row, publish_slide
from wsi_ncmi.extraction.slide import prepare_slide
from wsi_ncmi.extraction.staging import NotStagedError, Stage
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.storage import check_same_mount
from wsi_ncmi.parallel import Finished, Message, Paused, Progress, Resumed, SlotFree, Started, Stopped
from wsi_ncmi.slides import open_slide
from wsi_ncmi.slides.discovery import find_slides

_LOG = logging.getLogger(__name__)
# An idle encoder thread polls for the tiles of an unfinished batch, and takes them when none has come for the
# longest wait. An idle device loses nothing by computing a batch that is partly empty.
_POLL_INTERVAL_S = 0.05
_MAX_WAIT_S = 1.0
_SLIDE_BYTES = 16 << 20
_ABORT_S = 8.0


class Pipeline:
    """The pipeline; a context manager. Leaving it waits for all slides, or gives them up after an exception.

    Args:
        encoder: The encoder.
        report: Called with every message, from several threads; it must not block for long.
        config: Threads and memory.
    """

    def __init__(self, encoder: Encoder, report: Callable[[Message], None], config: PipelineConfig) -> None:
        self._encoder, self._report, self._config = encoder, report, config
        self._batch_size = encoder.info.batch_size or config.batch_size
        self._batcher = TileBatcher(self._batch_size)
        self._pixels, self._slides = MemoryBudget(config.buffer_bytes), MemoryBudget(config.slide_bytes)
        self._inbox: queue.SimpleQueue[SlideWork | None] = queue.SimpleQueue()
        self._batches: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[SlideWork | None] = queue.SimpleQueue()
        self._stop, self._all_read = threading.Event(), threading.Event()
        self._reading = self._blocked = 0
        self._lock = threading.Lock()
        self._works: dict[int, SlideWork] = {}
        n_encoders = config.encoder_threads if encoder.concurrent else 1
        self._meter = UtilisationMeter(n_encoders)
        self._stage = Stage(config.stage, config.stage_bytes) if config.stage is not None else None
        self._incoming = self._inbox if self._stage is None else queue.SimpleQueue[SlideWork | None]()
        self._ahead = threading.Semaphore(config.readers)
        self._stager = [self._thread(self._stage_all, "stager")] if self._stage is not None else []
        self._readers = [self._thread(self._read_all, f"reader-{i}") for i in range(config.readers)]
        self._encoders = [self._thread(self._encode_all, f"encoder-{i}") for i in range(n_encoders)]
        self._writer = self._thread(self._write_all, "writer")

    def __enter__(self) -> Self:
        for thread in (*self._stager, *self._readers, *self._encoders, self._writer):
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None or self._stop.is_set():
            self.abort()
            return
        if self._stager:
            self._incoming.put(None)
            _join(self._stager)
        for _ in self._readers:
            self._inbox.put(None)
        _join(self._readers)
        if self._stage is not None:
            self._stage.close()
        self._all_read.set()
        _join(self._encoders)
        self._outbox.put(None)
        self._writer.join()

    def submit(self, index: int, task: SlideTask) -> None:
        """Adds a slide; its row comes as :class:`Finished`, in order of completion."""
        work = SlideWork(index, task)
        with self._lock:
            self._works[index] = work
        self._incoming.put(work)

    @property
    def utilisation(self) -> Utilisation:
        """Utilisation of the encoder so far."""
        return self._meter.utilisation

    def abort(self) -> None:
        """Ends as soon as possible: published files stay, unfinished slides leave neither file nor claim."""
        self._stop.set()
        self._all_read.set()
        for budget in (self._pixels, self._slides):
            budget.close()
        if self._stage is not None:
            self._stage.close()
            self._ahead.release()
            self._incoming.put(None)
        for _ in self._readers:
            self._inbox.put(None)
        self._outbox.put(None)
        deadline = time.monotonic() + _ABORT_S
        for thread in (*self._stager, *self._readers, *self._encoders, self._writer):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            left = list(self._works.values())
            self._works.clear()
        for work in left:
            with contextlib.suppress(Exception):
                work.release()

    def _thread(self, target: Callable[[], None], name: str) -> threading.Thread:
        def run() -> None:
            try:
                target()
            except ClosedError:
                pass
            except BaseException as error:  # a fault of the pipeline itself must not hang the job
                self._give_up(JobStoppedError(f"internal error {type(error).__name__}: {error}."))
                raise

        return threading.Thread(target=run, name=name, daemon=True)

    def _give_up(self, error: WsiNcmiError) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._all_read.set()
            for budget in (self._pixels, self._slides):
                budget.close()
            self._report(Stopped(error))

    def _stage_all(self) -> None:
        while not self._stop.is_set():
            self._ahead.acquire()
            self._report(SlotFree())
            work = self._incoming.get()
            if work is None:
                return
            self._report(Started(work.index))
            try:
                self._begin(work)
                self._copy(work)
            except ClosedError:
                return
            except (IdentityConflictError, JobStoppedError) as error:
                self._give_up(error)
                return
            except Exception as error:
                work.fail(error)
                work.is_settled = True
            self._report(Paused(work.index))
            self._inbox.put(work)

    def _copy(self, work: SlideWork) -> None:
        """Copies a slide to the stage folder; what can't be copied is read where it is."""
        if self._stage is None or work.is_settled:
            return
        source = work.source
        if isinstance(source, tuple):
            files = source
        else:
            (found,) = find_slides(source)
            files = (found.path, *found.companions)
        try:
            expected = work.task.record.fingerprint
            work.staged = self._stage.take(files, expected, self._waiting_context(work))
        except NotStagedError as error:
            if self._stop.is_set():
                raise ClosedError from None
            _LOG.warning("%s", error)

    def _read_all(self) -> None:
        while not self._stop.is_set():
            if self._stage is None:
                self._report(SlotFree())
            work = self._inbox.get()
            if work is None:
                return
            self._ahead.release()
            self._count_reading(+1)
            self._report(Started(work.index))
            try:
                self._read(work)
            except ClosedError:
                return
            except (IdentityConflictError, JobStoppedError) as error:
                self._give_up(error)
                return
            except Exception as error:
                work.fail(error)
            finally:
                self._count_reading(-1)
                if work.prepared is not None:
                    work.slide.close()
                if self._stage is not None and work.staged is not None:
                    self._stage.release(work.staged)
            self._complete(work, 1)

    def _count_reading(self, change: int) -> None:
        with self._lock:
            self._reading += change

    def _count_blocked(self, change: int) -> None:
        with self._lock:
            self._blocked += change

    def _begin(self, work: SlideWork) -> None:
        if not work.is_settled and (final := self._claim(work)) is not None:
            work.row, work.is_settled = final, True

    def _read(self, work: SlideWork) -> None:
        if self._stage is None:
            self._begin(work)
        if work.is_settled:
            return
        slide = open_slide(work.source)
        try:
            prepared = prepare_slide(work.task, slide)
        except BaseException:
            slide.close()
            raise
        work.slide = slide
        waiting = self._waiting_context(work)
        embed_dim = self._encoder.info.embed_dim
        cost = len(prepared.selection) * embed_dim * 2 + prepared.mask.mask.nbytes + _SLIDE_BYTES
        self._slides.acquire(cost, waiting)
        work.held.callback(self._slides.release, cost)
        work.set_prepared(prepared, embed_dim)
        self._meter.start()
        edge = prepared.grid.tile_px
        tiles = read_tiles_of(
            work, prepared, self._pixels, batch_size=self._batch_size,
            # The first tiles fill the batch that another slide began: all others come as whole batches then,
            # and their pixels are not copied together once more.
            first=self._batcher.free_slots((edge, edge, 3)), threads=self._config.decode_threads,
            waiting=waiting, limit=self._config.buffer_bytes,
        )  # fmt: skip
        for rows, pixels in tiles:
            work.add_pending(len(rows))
            for batch in self._batcher.add(TileChunk(work, rows, pixels)):
                self._batches.put(batch)
            if self._stop.is_set():
                raise ClosedError

    def _claim(self, work: SlideWork) -> LedgerRow | None:
        return claim_slide(work.task, self._encoder.info, work.row, work.held)

    def _waiting_context(self, work: SlideWork) -> Callable[[], contextlib.AbstractContextManager[None]]:
        @contextlib.contextmanager
        def waiting() -> Iterator[None]:
            self._report(Paused(work.index))
            self._count_blocked(+1)
            try:
                yield
            finally:
                self._count_blocked(-1)
                self._report(Resumed(work.index))

        return waiting

    def _encode_all(self) -> None:
        begun: deque[tuple[Batch, Callable[[], None]]] = deque()
        while not self._stop.is_set():
            batch = self._next_batch(wait=not begun)
            if batch is not None:
                with self._meter.working():
                    begun.append((batch, begin_batch(self._encoder, batch)))
            if begun and (batch is None or len(begun) >= self._encoder.depth):
                done, finish = begun.popleft()
                with self._meter.working():
                    finish()
                self._encoded(done)
            elif batch is None and not begun and self._is_drained():
                return

    def _next_batch(self, *, wait: bool) -> Batch | None:
        try:
            return self._batches.get(timeout=_POLL_INTERVAL_S) if wait else self._batches.get_nowait()
        except queue.Empty:
            if not wait:
                return None
        with self._lock:
            # Readers that wait for memory bring no more tiles.
            more = self._reading > self._blocked
        return self._batcher.flush(_MAX_WAIT_S if more else _POLL_INTERVAL_S)

    def _is_drained(self) -> bool:
        return self._all_read.is_set() and self._batches.empty() and self._batcher.is_empty

    def _encoded(self, batch: Batch) -> None:
        self._meter.count(len(batch))
        self._pixels.release(batch.n_bytes)
        for chunk in batch.chunks:
            self._complete(chunk.work, len(chunk))

    def _complete(self, work: SlideWork, count: int) -> None:
        if work.complete(count):
            self._outbox.put(work)

    def _write_all(self) -> None:
        while (work := self._outbox.get()) is not None:
            if self._stop.is_set():
                return
            try:
                self._publish(work)
            except (IdentityConflictError, JobStoppedError) as error:
                self._give_up(error)
                return
            with self._lock:
                self._works.pop(work.index, None)
            work.release()
            self._report(Progress(self.utilisation))
            self._report(Finished(work.index, work.finish(work.row)))

    def _publish(self, work: SlideWork) -> None:
        if work.prepared is None or work.error is not None:
            return
        try:
            embedding = work.assemble(self._encoder.info)
            check_same_mount(work.task.out)
            publish_slide(work.prepared, embedding, self._encoder.info)
        except JobStoppedError:
            check_same_mount(work.task.out)  # another folder may be in its place since
            raise
        except IdentityConflictError:
            raise
        except Exception as error:
            work.fail(error)
        else:
            work.row = done_row(work.row, embedding)


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def extract_slide(task: SlideTask, encoder: Encoder, *, batch_size: int = 16) -> LedgerRow:
    """Extracts one slide: tissue, tiles, embeddings, feature file, outline, thumbnail.

    Args:
        task: The slide.
        encoder: The encoder.
        batch_size: Tiles of a batch where the encoder does not say itself.

    Returns:
        The slide's ledger row. A slide that can't be processed is ``failed`` with the reason; a slide without
        tissue is ``done`` with 0 tiles; one that is there already is ``skipped``.

    Raises:
        IdentityConflictError: A file of another identity is there and ``overwrite`` is off.
        JobStoppedError: The output can't be written to (disk full, read-only, gone).
    """
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with Pipeline(encoder, messages.put, PipelineConfig(batch_size=batch_size)) as pipeline:
        pipeline.submit(0, task)
        while True:
            message = messages.get()
            if isinstance(message, Stopped):
                raise message.error
            if isinstance(message, Finished):
                row: LedgerRow = message.result
                return row
