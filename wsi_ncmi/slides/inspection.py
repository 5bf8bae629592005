"""Opens files in a process of its own, where a crash, a hang or a bomb costs that file alone."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from wsi_ncmi.core.errors import SlideError, plain_reason
from wsi_ncmi.core.progress import TaskProgress
from wsi_ncmi.parallel.limits import limit_memory, memory_limit, peak_memory
from wsi_ncmi.parallel.pool import Job
from wsi_ncmi.parallel.process_pool import ProcessPool
from wsi_ncmi.parallel.worker import Finished, Message, Progress, SlotFree, Started, WorkerHandle
from wsi_ncmi.slides.dicom_header import PSEUDONYM
from wsi_ncmi.slides.found import FoundSlide
from wsi_ncmi.slides.identity import fingerprint, stamp_of
from wsi_ncmi.slides.mpp import resolve_mpp
from wsi_ncmi.slides.opening import open_slide
from wsi_ncmi.slides.record import BETWEEN, SlideRecord
from wsi_ncmi.slides.registry import list_readers

TIMEOUT_S = 120.0
"""Seconds that opening one slide, which is reading its headers, may take."""

_MEMORY_BYTES = 4 << 30
# Opening waits for the disk or network, not for the processor: more threads than cores pay.
_THREADS = 8


def inspect_slides(
    slides: Sequence[tuple[FoundSlide, str, float | None]],
    default_mpp: float | None,
    progress: TaskProgress,
    timeout_s: float = TIMEOUT_S,
) -> list[SlideRecord]:
    """Opens slides and reads what an inventory tells of them.

    Args:
        slides: Each with its id, and its resolution where the user gave one.
        default_mpp: Resolution of slides without any of their own.
        progress: Told of every slide.
        timeout_s: Seconds that opening one of them may take.

    Returns:
        Their records, in the same order. What ends the process, takes too long or more memory than opening
        needs has a problem.

    Raises:
        JobStoppedError: Processes die before they can start.
    """
    job = _Inspection([(*slide, default_mpp) for slide in slides], progress)
    with ProcessPool(_Inspector, size=1, timeout_s=timeout_s, needs_main=False) as pool:
        pool.run(job)
    return [job.records[index] for index in range(len(slides))]


class _Inspection(Job):
    def __init__(self, items: Sequence[Any], progress: TaskProgress) -> None:
        self.records: dict[int, SlideRecord] = {}
        self._progress = progress
        self.items = items

    def finish(self, index: int, result: SlideRecord) -> bool:
        self.records[index] = result
        self._progress.advance(1, result.slide_id)
        return True

    def fail_overdue(self, index: int, timeout_s: float) -> None:
        self._fail(index, f"was not opened within {timeout_s:g} s; check the file and the disk that it is on")

    def fail_deadly(self, index: int, how: str) -> None:
        self._fail(index, f"ends the process that opens it ({how}); it is damaged, or takes too much memory")

    def take_progress(self, worker: WorkerHandle, message: Progress) -> None:
        """Nothing is told."""

    def mark_lost(self, index: int) -> None:
        """Nothing: the slide is opened once more, or has its problem."""

    def clean_up(self, index: int, worker: WorkerHandle) -> None:
        """Nothing: opening leaves no trace."""

    def _fail(self, index: int, what: str) -> None:
        found, slide_id, *_ = self.items[index]
        self.finish(index, _unopened(found, slide_id, f"{found.path.name} {what}."))


class _Inspector:
    """Opens slides in a process with a bound on its memory, several at a time."""

    info = None

    def __init__(self) -> None:
        self._bytes = min(_MEMORY_BYTES, memory_limit() // 2)
        limit_memory(self._bytes)
        list_readers()[0].unavailable()  # its library is loaded before any slide's time runs
        self._threads = ThreadPoolExecutor(_THREADS)
        self._lock, self._open = threading.Lock(), 0

    def begin(self, config: Any, send: Callable[[Message], None]) -> None:
        self._send = send
        for _ in range(_THREADS):
            send(SlotFree())

    def submit(self, index: int, item: Any) -> None:
        with self._lock:
            self._open += 1
        self._threads.submit(self._inspect, index, item)

    def _inspect(self, index: int, item: Any) -> None:
        self._send(Started(index))
        record = inspect_slide(*item)
        with self._lock:
            if record.problem and self._open > 1 and peak_memory() > self._bytes // 2:
                # Memory may have been short for the fault of another: all of them are tried again, alone.
                os._exit(1)
            self._open -= 1
        self._send(Finished(index, record))
        self._send(SlotFree())


def inspect_slide(
    found: FoundSlide, slide_id: str, table_mpp: float | None, default_mpp: float | None
) -> SlideRecord:
    """Opens one slide in this process and reads what an inventory tells of it.

    Args:
        found: The slide.
        slide_id: Its id.
        table_mpp: Its resolution where the user gave one.
        default_mpp: Resolution of slides without any of their own.
    """
    record = _unopened(found, slide_id, found.problem)
    if found.problem:
        return record
    try:
        size = sum(file.stat().st_size for file in (found.path, *found.companions))
        record = replace(record, size_bytes=size, stamp=stamp_of((found.path, *found.companions)))
        record = replace(record, fingerprint=fingerprint(found.path, found.companions))
        files = (found.path, *found.companions) if found.dicom else found.path
        with open_slide(files, compare_levels=False) as slide:
            record = replace(
                record, reader=slide.reader, vendor=slide.vendor, width_px=slide.width_px,
                height_px=slide.height_px, n_levels=len(slide.levels), remark=slide.note,
                bounds=" ".join(map(str, slide.bounds or ())) if any(slide.origin) else "",
            )  # fmt: skip
            mpp = resolve_mpp(slide, table_mpp=table_mpp, default_mpp=default_mpp)
        return replace(record, mpp_x=mpp.x, mpp_y=mpp.y, mpp_source=mpp.source)
    except SlideError as error:
        return replace(record, problem=str(error))
    except MemoryError:
        return replace(
            record, problem=f"{found.path.name} takes more memory than a slide may; it is damaged."
        )
    except Exception as error:  # readers raise whatever their parsers stumble over
        reason = plain_reason(error, found.path)
        return replace(record, problem=f"{found.path.name} can't be read ({reason}); check its permissions.")


def _unopened(found: FoundSlide, slide_id: str, problem: str) -> SlideRecord:
    return SlideRecord(
        slide_id=slide_id, path=found.relative, reader="", vendor="", width_px=0, height_px=0, n_levels=0,
        mpp_x=None, mpp_y=None, mpp_source="", fingerprint="", size_bytes=0, problem=problem,
        container_id=found.element("ContainerIdentifier"), series_uid=found.element("SeriesInstanceUID"),
        study_uid=found.element("StudyInstanceUID"), case_id=found.element(PSEUDONYM),
        companions=BETWEEN.join(each.relative for each in found.dicom[1:]),
    )  # fmt: skip
