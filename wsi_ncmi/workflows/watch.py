"""Predicting slides as they arrive in a folder, until stopped."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.files import job_folder
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.watch import WatchedFolder
from wsi_ncmi.workflows.predict import Predictor
from wsi_ncmi.workflows.result import JobResult

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 3600.0


def watch(
    config: PredictConfig,
    progress: ProgressReporter | None = None,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> JobResult:
    """Predicts every slide that arrives in ``config.slides``.

    Where the config has no time limit, a slide is given up after an hour.

    Args:
        config: As for ``predict``; ``slides`` is a folder, which may be empty.
        progress: Shows the slides.
        clock: Seconds since the epoch.
        sleep: Waits so many seconds.

    Returns:
        Files of the last prediction, ``watch`` and ``quarantine``; a failure for every slide in
        quarantine, and for every one without the DICOM objects that were asked for.

    Raises:
        InputError: As ``predict``, or no folder, or a ``watch.json`` of something else.
        KeyboardInterrupt: Stopped; everything up to the last finished round is on disk.
    """
    if not config.slides.is_dir():
        raise InputError(f"{config.slides} is no folder; --watch looks at a folder that slides arrive in.")
    if config.extraction.timeout_per_slide is None:
        config = replace(config, extraction=replace(config.extraction, timeout_per_slide=_TIMEOUT_S))
    predictor = Predictor(config)
    predictor.check_encoder()
    times = config.watch
    out = job_folder(config.out)
    digest = predictor.bundle.digest
    folder = WatchedFolder(config.slides, out, config.cache or out, digest, times.settle_s)
    last = clock()
    files: dict[str, Path] = {}
    while True:
        ready = folder.ready(clock())
        if ready:
            _LOG.info("%s: %s", counted(len(ready), "new slide"), ", ".join(sorted(ready)[:5]))
            signatures = folder.signatures(ready)
            replaced = folder.replaced(ready)
            files |= predictor.run(progress, frozenset(ready), replaced, folder.given()).files
            # One that went away before it was read is taken when it comes again.
            there = {slide_id: slide for slide_id, slide in ready.items() if os.path.lexists(slide.path)}
            folder.record(there, signatures, predictor.problems, predictor.without_dicom)
            last = clock()
        elif times.until_idle_s is not None and not folder.waiting and clock() - last >= times.until_idle_s:
            return _result(folder, files, config)
        else:
            sleep(times.interval_s)


def _result(folder: WatchedFolder, files: dict[str, Path], config: PredictConfig) -> JobResult:
    from wsi_ncmi.extraction.known_failures import is_known, read_known_failures, settle
    from wsi_ncmi.extraction.ledger import read_ledger

    slides = folder.slides
    bad = {path: seen for path, seen in slides.items() if seen.status == "quarantined"}
    ids = {seen.slide_id for seen in slides.values()}
    ledger = (config.cache or config.out) / "ledger.csv"
    rows = [row for row in read_ledger(ledger) if row.slide_id in ids] if ledger.is_file() else []
    remarks: list[str] = []
    if config.known_failures is not None:
        # Of all rounds together: a round alone doesn't know the slides of the others.
        rows, remarks = settle(rows, read_known_failures(config.known_failures), ids)
    known = len({row.slide_id for row in rows if is_known(row)})
    return JobResult(
        {**files, "watch": folder.file, "quarantine": folder.quarantine},
        tuple(f"{path}: {seen.reason}" for path, seen in slides.items() if seen.reason),
        (
            f"{counted(len(slides) - len(bad) - known, 'slide')} predicted, {len(bad)} in quarantine"
            + (f", {known} failed as known" if known else "")
            + "; nothing new has come.",
            *remarks,
        ),
    )
