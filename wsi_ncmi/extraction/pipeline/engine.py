"""Readers, encoding lanes and a writer, each in threads of its own, over many slides at once.

    submit ─▶ readers ─▶ packer ─▶ lanes ─▶ writer ─▶ Finished
              claim, open,  batches    encoder    files, claim released
              tissue, tiles of one     (threads or
              decoded       shape      CUDA device)

Between readers and lanes, bytes of pixels are bounded; so are those of features of slides that are not
published. A tile's vector depends on the tile alone, so it does not matter with whom it shares a batch.
"""

from __future__ import annotations

import contextlib
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
from wsi_ncmi.extraction.pipeline.budget import Budget, ClosedError
from wsi_ncmi.extraction.pipeline.config import Load, PipelineConfig
from wsi_ncmi.extraction.pipeline.encoding import begin_batch
from wsi_ncmi.extraction.pipeline.meter import Meter
from wsi_ncmi.extraction.pipeline.packing import Batch, Packer, Part
from wsi_ncmi.extraction.pipeline.reading import read_tiles_of
from wsi_ncmi.extraction.pipeline.work import SlideWork
from wsi_ncmi.extraction.slide import done_row, prepare_slide, publish_slide
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features.storage import check_place
from wsi_ncmi.parallel import Finished, Message, Paused, Progress, Resumed, SlotFree, Started, Stopped
from wsi_ncmi.slides import open_slide

__all__ = ["Engine"]

# A lane that has nothing to do looks for tiles that wait for company so often, and takes them when none has
# come for so long. An idle device loses nothing by computing a batch that is partly empty.
_LOOK_S = 0.05
_PATIENCE_S = 1.0
_SLIDE_BYTES = 16 << 20
_ABORT_S = 8.0


class Engine:
    """The pipeline; a context manager. Leaving it waits for all slides, or gives them up after an exception.

    Args:
        encoder: The encoder.
        report: Told every message, from several threads; it must not block for long.
        options: Threads and memory.
    """

    def __init__(self, encoder: Encoder, report: Callable[[Message], None], options: PipelineConfig) -> None:
        self._encoder, self._report, self._options = encoder, report, options
        self._batch_size = encoder.info.batch_size or options.batch_size
        self._packer = Packer(self._batch_size)
        self._pixels, self._slides = Budget(options.buffer_bytes), Budget(options.slide_bytes)
        self._inbox: queue.SimpleQueue[SlideWork | None] = queue.SimpleQueue()
        self._batches: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[SlideWork | None] = queue.SimpleQueue()
        self._stop, self._all_read = threading.Event(), threading.Event()
        self._reading = self._blocked = 0
        self._lock = threading.Lock()
        self._works: dict[int, SlideWork] = {}
        lanes = options.lanes if encoder.concurrent else 1
        self._meter = Meter(lanes)
        self._readers = [self._thread(self._read_all, f"reader-{i}") for i in range(options.readers)]
        self._lanes = [self._thread(self._encode_all, f"encoder-{i}") for i in range(lanes)]
        self._writer = self._thread(self._write_all, "writer")

    def __enter__(self) -> Self:
        for thread in (*self._readers, *self._lanes, self._writer):
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
        for _ in self._readers:
            self._inbox.put(None)
        _join(self._readers)
        self._all_read.set()
        _join(self._lanes)
        self._outbox.put(None)
        self._writer.join()

    def submit(self, index: int, task: SlideTask) -> None:
        """Hands a slide in; its row comes as :class:`Finished`, in order of completion."""
        work = SlideWork(index, task)
        with self._lock:
            self._works[index] = work
        self._inbox.put(work)

    @property
    def load(self) -> Load:
        """What was done so far."""
        return self._meter.load

    def abort(self) -> None:
        """Ends as soon as may be: what is published stays, all else leaves neither file nor claim."""
        self._stop.set()
        self._all_read.set()
        for budget in (self._pixels, self._slides):
            budget.close()
        for _ in self._readers:
            self._inbox.put(None)
        self._outbox.put(None)
        deadline = time.monotonic() + _ABORT_S
        for thread in (*self._readers, *self._lanes, self._writer):
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
            except BaseException as error:  # a fault of the engine itself must not hang the job
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

    def _read_all(self) -> None:
        while not self._stop.is_set():
            self._report(SlotFree())
            work = self._inbox.get()
            if work is None:
                return
            self._busy(+1)
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
                self._busy(-1)
                if work.prepared is not None:
                    work.slide.close()
            self._settle(work, 1)

    def _busy(self, change: int) -> None:
        with self._lock:
            self._reading += change

    def _block(self, change: int) -> None:
        with self._lock:
            self._blocked += change

    def _read(self, work: SlideWork) -> None:
        if work.task.record.problem:
            return
        final = claim_slide(work.task, self._encoder.info, work.row, work.held)
        if final is not None:
            work.row = final
            return
        slide = open_slide(work.task.slide_path)
        try:
            prepared = prepare_slide(work.task, slide)
        except BaseException:
            slide.close()
            raise
        work.slide = slide
        waiting = self._waiting_context(work)
        embed_dim = self._encoder.info.embed_dim
        cost = len(prepared.selection) * embed_dim * 2 + prepared.mask.mask.nbytes + _SLIDE_BYTES
        self._slides.take(cost, waiting)
        work.held.callback(self._slides.give, cost)
        work.has_prepared(prepared, embed_dim)
        self._meter.starts()
        edge = prepared.grid.tile_px
        tiles = read_tiles_of(
            work, prepared, self._pixels, batch_size=self._batch_size,
            # The first tiles fill the batch that another slide began: all further ones come as whole batches
            # then, and their pixels are not copied together once more.
            first=self._packer.room((edge, edge, 3)), threads=self._options.decode_threads,
            waiting=waiting, limit=self._options.buffer_bytes,
        )  # fmt: skip
        for rows, pixels in tiles:
            work.expect(len(rows))
            for batch in self._packer.add(Part(work, rows, pixels)):
                self._batches.put(batch)
            if self._stop.is_set():
                raise ClosedError

    def _waiting_context(self, work: SlideWork) -> Callable[[], contextlib.AbstractContextManager[None]]:
        @contextlib.contextmanager
        def waiting() -> Iterator[None]:
            self._report(Paused(work.index))
            self._block(+1)
            try:
                yield
            finally:
                self._block(-1)
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
            return self._batches.get(timeout=_LOOK_S) if wait else self._batches.get_nowait()
        except queue.Empty:
            if not wait:
                return None
        with self._lock:
            # Readers that wait for room bring no company for the tiles that take it up.
            coming = self._reading > self._blocked
        return self._packer.flush(_PATIENCE_S if coming else _LOOK_S)

    def _is_drained(self) -> bool:
        return self._all_read.is_set() and self._batches.empty() and self._packer.is_empty

    def _encoded(self, batch: Batch) -> None:
        self._meter.counts(len(batch))
        self._pixels.give(batch.n_bytes)
        for part in batch.parts:
            self._settle(part.work, len(part))

    def _settle(self, work: SlideWork, count: int) -> None:
        if work.settle(count):
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
            self._report(Progress(self.load))
            self._report(Finished(work.index, work.finish(work.row)))

    def _publish(self, work: SlideWork) -> None:
        if work.prepared is None or work.error is not None:
            return
        try:
            embedded = work.assemble(self._encoder.info)
            check_place(work.task.out)
            publish_slide(work.prepared, embedded, self._encoder.info)
        except JobStoppedError:
            check_place(work.task.out)  # another folder may have come in its place since
            raise
        except IdentityConflictError:
            raise
        except Exception as error:
            work.fail(error)
        else:
            work.row = done_row(work.row, embedded)


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
