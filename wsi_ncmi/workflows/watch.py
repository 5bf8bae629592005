"""Predicting slides as they arrive in a folder, until stopped."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from wsi_ncmi.core.errors import InputError, JobStoppedError, counted
from wsi_ncmi.core.files import job_folder
from wsi_ncmi.core.heartbeat import beat
from wsi_ncmi.core.interrupts import TerminatedError
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.extraction.contact_sheet import write_contact_sheet
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.watch import WatchedFolder
from wsi_ncmi.service.service import Service
from wsi_ncmi.slides.found import FoundSlide
from wsi_ncmi.training.bundle_io import MANIFEST
from wsi_ncmi.workflows.predict import Predictor
from wsi_ncmi.workflows.result import JobResult

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 3600.0
_TABLES_SHARE = 0.1  # of the time that tables and pages about all slides may take
_MAX_ROUND = 16  # answers are given at the end of a round, and a burst of slides is not to delay the first


def watch(
    config: PredictConfig,
    progress: ProgressReporter | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> JobResult:
    """Predicts every slide that arrives in ``config.slides``.

    Where the config has no time limit, a slide is given up after an hour. A model that is put in the place of
    the present one is taken into use between two rounds; answers of the one before stay where both have the
    same classes. Tables and pages follow the answers, at once where they are quickly written.

    Args:
        config: As for ``predict``; ``slides`` is a folder, which may be empty.
        progress: Shows the slides.
        clock: Seconds of a clock that is never set.
        sleep: Waits so many seconds.

    Returns:
        Files of the last prediction, ``watch``, ``quarantine``, ``audit_log`` and ``metrics``; a failure for
        every slide in quarantine, and for every one without the DICOM objects that were asked for. After
        SIGTERM without failures: the slides in hand were released.

    Raises:
        InputError: As ``predict``, or no folder, or a ``watch.json`` of something else, or an audit trail
            that is broken or that another process writes to.
        JobStoppedError: A round can't go on, such as for want of space; what is done is kept.
        KeyboardInterrupt: Stopped; everything up to the last finished round is on disk.
    """
    if not config.slides.is_dir():
        raise InputError(f"{config.slides} is no folder; --watch looks at a folder that slides arrive in.")
    if config.extraction.timeout_per_slide is None:
        config = replace(config, extraction=replace(config.extraction, timeout_per_slide=_TIMEOUT_S))
    beat("starting")
    try:
        return _Watch(config, progress, clock, sleep).run()
    except TerminatedError:
        return JobResult({}, notes=("Stopped; the slides in hand were released and come first next time.",))


class _Watch:
    """The rounds of a watched folder with one model after the other."""

    def __init__(
        self,
        config: PredictConfig,
        progress: ProgressReporter | None,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._config, self._progress, self._clock, self._sleep = config, progress, clock, sleep
        self._files: dict[str, Path] = {}
        self._tables_due: float | None = None
        self._not_before = clock()

    def run(self) -> JobResult:
        version = _version(self._config.model)
        predictor = self._load()
        with Service(self._config, predictor.bundle, self._clock) as service:
            self._use(predictor, service)
            if self._folder.slides:  # a kill may have come before their tables
                self._tables_due = self._clock()
            beat("ready")
            try:
                self._look_on(service, version)
            except KeyboardInterrupt:  # SIGTERM too
                self._write_tables(service)
                raise
            self._write_tables(service)
        return _result(self._folder, {**self._files, **service.files}, self._config)

    def _look_on(self, service: Service, version: tuple[str, int, int]) -> None:
        """Looks at folder and model again and again, until nothing new has come for long enough."""
        times, clock = self._config.watch, self._clock
        last = clock()
        while True:
            ready = self._folder.ready(clock())
            waiting = self._folder.waiting
            service.looked(len(waiting), min(waiting.values(), default=None), self._folder.slides.values())
            if self._tables_due is not None and clock() >= self._tables_due:
                self._write_tables(service)
            if version != (version := _version(self._config.model)):
                self._change_model(service)
            elif ready:
                self._round(dict(islice(ready.items(), _MAX_ROUND)), service)
                last = clock()
            elif times.until_idle_s is not None and not waiting and clock() - last >= times.until_idle_s:
                return
            else:
                self._sleep(times.interval_s)

    def _load(self) -> Predictor:
        predictor = Predictor(self._config)
        predictor.check_encoder()
        return predictor

    def _use(self, predictor: Predictor, service: Service) -> None:
        config, bundle = self._config, predictor.bundle
        out = job_folder(config.out)
        stays = {
            slide_id: answer.model["digest"] == bundle.digest
            or not (
                config.watch.answer_again
                or (answer.prediction and set(answer.probabilities) != set(bundle.classes))
            )
            for slide_id, answer in service.answers.items()
        }
        self._folder = WatchedFolder(
            config.slides, out, config.cache or out, bundle.digest, stays, config.watch.settle_s
        )
        self._predictor = predictor
        seen = {slide.slide_id for slide in self._folder.slides.values()}
        self._unlogged = predictor.recall(seen - service.answers.keys())

    def _change_model(self, service: Service) -> None:
        before = self._predictor.bundle
        try:
            predictor = self._load()
        except InputError as error:
            _LOG.warning("The new model is not taken (%s); %s stays in use.", error, before.name)
            return
        if predictor.bundle.digest != before.digest:
            self._use(predictor, service)
            _LOG.info("%s is in use now.", predictor.bundle.name)
            service.use(predictor.bundle)

    def _round(self, slides: dict[str, FoundSlide], service: Service) -> None:
        folder, predictor = self._folder, self._predictor
        _LOG.info("%s: %s", counted(len(slides), "new slide"), ", ".join(sorted(slides)[:5]))
        signatures = folder.signatures(slides)
        arrived = folder.waiting
        try:
            ran = predictor.run(self._progress, frozenset(slides), folder.replaced(slides), folder.given())
        except InputError as error:  # such as a full disk: not the input's fault, to be tried again
            raise JobStoppedError(str(error)) from error
        self._files |= ran.files
        if self._tables_due is None:
            self._tables_due = self._not_before
        # One that went away before it was read is taken when it comes again.
        there = {slide_id: slide for slide_id, slide in slides.items() if os.path.lexists(slide.path)}
        for slide_id, (prediction, fingerprint) in predictor.predictions.items():
            if slide_id in there:
                service.publish(prediction, fingerprint, arrived[slides[slide_id].relative])
        for stage, seconds in predictor.timings:
            service.took(stage, seconds)
        folder.record(there, signatures, predictor.problems, predictor.without_dicom)

    def _write_tables(self, service: Service) -> None:
        """Writes tables and pages about all slides, where there is a new answer."""
        if self._tables_due is None:
            return
        started = self._clock()
        answers = {**self._unlogged, **service.answers}
        ids = [slide.slide_id for slide in self._folder.slides.values() if slide.slide_id in answers]
        self._files |= self._predictor.write([answers[slide_id] for slide_id in ids]).files
        self._files["contact_sheet"] = write_contact_sheet(self._config.cache or self._config.out)
        ended = self._clock()
        self._tables_due, self._not_before = None, ended + (ended - started) * (1 / _TABLES_SHARE - 1)


def _version(model: Path) -> tuple[str, int, int]:
    """What changes when another model is put in the place of one; nothing is read."""
    file = model / MANIFEST if (model / MANIFEST).is_file() else model
    try:
        status = file.stat()
    except OSError:  # in the moment of a change
        return "", 0, 0
    return os.path.realpath(file), status.st_mtime_ns, status.st_size if file.is_file() else 0


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
