"""Predicting new slides: features, predictions, explanations and pages."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from wsi_ncmi.core.config.keywords import takes_settings
from wsi_ncmi.core.extras import require
from wsi_ncmi.core.files import check_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.encoders.weights_folder import resolve_weights
from wsi_ncmi.features.paths import feature_folder
from wsi_ncmi.prediction.bundle import ModelBundle, load_model
from wsi_ncmi.prediction.config import PredictConfig
from wsi_ncmi.prediction.dicom_results import check_any_dicom, results_folder
from wsi_ncmi.prediction.ensemble import check_features
from wsi_ncmi.prediction.extraction_settings import (
    extract_config,
    slide_encoder_of,
    stain_target_of,
    tile_origin,
)
from wsi_ncmi.prediction.outputs import case_notes, prediction_notes, read_cases, write_predictions
from wsi_ncmi.prediction.shadow import Shadow
from wsi_ncmi.prediction.slide_prediction import SlidePrediction, no_prediction
from wsi_ncmi.prediction.slide_records import SlideRecords
from wsi_ncmi.slides import slide_key
from wsi_ncmi.workflows.extraction import extract
from wsi_ncmi.workflows.result import JobResult

if TYPE_CHECKING:
    from wsi_ncmi.encoders import EncoderInfo
    from wsi_ncmi.extraction.ledger import LedgerRow


_OF_EACH_SLIDE = ("prediction", "heatmaps", "DICOM")


@takes_settings("wsi_ncmi.prediction:PredictConfig", "slides", "model", "out")
def predict(config: PredictConfig, progress: ProgressReporter | None = None) -> JobResult:
    """Predicts new slides with the encoder, grid and tissue settings that the models were trained with.

    Args:
        config: Slides, models and output.
        progress: Shows every slide.

    Returns:
        Paths of ``predictions``, ``answers`` (JSON), ``report``, ``attention``, ``ledger`` and, where asked
        for, ``patients``, ``dicom`` and ``shadow``; a failure for every slide that could not be predicted, or
        of which no DICOM objects could be written, for a fault of its own.

    Raises:
        InputError: The origin of the models' features is unknown, or the encoder differs from theirs.

    Example:
        >>> result = predict("new_slides", "model.zip", "out")  # doctest: +SKIP
        >>> result.predictions[["slide_id", "prediction", "decision"]]  # doctest: +SKIP
    """
    predictor = Predictor(config)
    if config.dicom.write:
        check_any_dicom(config.slides)
    return predictor.run(progress)


class Predictor:
    """A prediction job that may run again and again on a growing folder; what is done is not done twice.

    Args:
        config: Slides, models and output.

    Attributes:
        problems: Slide id → why it has no prediction or no pictures, of the slides of the last run.
        without_dicom: Slide id → why it has no DICOM objects, though they were asked for; of the same slides.
        predictions: Slide id → prediction and fingerprint (empty where it can't be read), of the same slides.
        timings: Stage and seconds of each slide, of the last run.

    Raises:
        InputError: As :func:`predict`.
    """

    def __init__(self, config: PredictConfig) -> None:
        require(("slides", "train"), "predict")
        if config.dicom.write:
            require(("dicom",), "--dicom")
        self.config = config
        self.problems: dict[str, str] = {}
        self.without_dicom: dict[str, str] = {}
        self.predictions: dict[str, tuple[SlidePrediction, str]] = {}
        self.timings: list[tuple[str, float]] = []
        self._seconds: dict[str, float] = {}
        with self._timed("model"):
            self.bundle: ModelBundle = load_model(config.model)
            self._extraction = extract_config(self.bundle, config)
            self._slide_encoder = slide_encoder_of(
                self.bundle.features, config, f"the model {self.bundle.name}"
            )
            self._stain = stain_target_of(self.bundle.features, f"the model {self.bundle.name}")
            self._shadow = None if config.shadow is None else Shadow(config, self.bundle)
        check_folder(config.out)
        self._cases = {} if config.cases is None else read_cases(config.cases)

    def run(
        self,
        progress: ProgressReporter | None = None,
        slide_ids: frozenset[str] | None = None,
        replaced: frozenset[str] = frozenset(),
        given: Mapping[str, str] | None = None,
    ) -> JobResult:
        """Extracts and predicts.

        Args:
            progress: Shows every slide.
            slide_ids: Slides of a round on a growing folder, which leaves tables and pages to :meth:`write`;
                None = all that are there.
            replaced: Slides whose files were replaced since they were predicted.
            given: Path → id of slides that were given one in earlier rounds.

        Raises:
            InputError: As :func:`predict`.
        """
        from wsi_ncmi.extraction.known_failures import is_known
        from wsi_ncmi.extraction.ledger import read_ledger

        progress = progress or NullProgress()
        self.timings = []
        with self._timed("extraction"):
            extracted = extract(
                self._extraction,
                progress,
                slide_ids=slide_ids,
                replaced=replaced,
                given=given,
                stain=self._stain,
                on_encoder=self._check_encoder,
            )
        rows = read_ledger(extracted.files["ledger"])
        if slide_ids is not None:
            rows = tuple(row for row in rows if row.slide_id in slide_ids)
        records = self._records()
        self.problems, self.without_dicom, self.predictions = {}, {}, {}
        with progress.task("predicting", len(rows), "slides") as task:
            for row in rows:
                prediction, problem, no_dicom = self._predict(row, records)
                self.predictions[row.slide_id] = prediction, records.fingerprint(row.slide_id)
                self.timings += [("extraction", row.seconds)] if row.status == "done" else []
                if not is_known(row):
                    if problem:
                        self.problems[row.slide_id] = problem
                    if no_dicom:
                        self.without_dicom[row.slide_id] = no_dicom
                task.advance(1, row.slide_id)
        files, notes = extracted.files, extracted.notes
        if slide_ids is None:
            written = self.write([prediction for prediction, _ in self.predictions.values()])
            files, notes = {**files, **written.files}, (*notes, *written.notes)
        return JobResult(
            files,
            tuple(
                f"{slide_id}: {problem}"
                for problems in (self.problems, self.without_dicom)
                for slide_id, problem in problems.items()
            ),
            notes,
        )

    def write(self, predictions: Sequence[SlidePrediction]) -> JobResult:
        """Writes tables and pages, and lets the shadow model predict what it has not yet.

        Args:
            predictions: Those that they are about.
        """
        predictions = [self._of_patient(prediction) for prediction in predictions]
        files = write_predictions(
            self.config,
            self.bundle,
            predictions,
            thumbnails=self._extraction.out / "thumbnails",
            seconds=self._seconds,
        )
        notes = prediction_notes(predictions, self.bundle, self._seconds)
        notes = (*notes, *case_notes(predictions, self._cases))
        if self.config.dicom.write:
            files["dicom"], note = results_folder(self.config.out, self.config.dicom)
            notes = (*notes, note)
        if self._shadow is not None:
            with self._timed("shadow"):
                notes = (*notes, self._shadow.predict(self._records(), predictions))
            files["shadow"] = self._shadow.file
        history = self.config.out / "history"
        if history.is_dir():
            notes = (*notes, "Earlier predictions of slides that were replaced since are kept in history/.")
        return JobResult(files, notes=notes)

    def recall(self, slide_ids: Collection[str]) -> dict[str, SlidePrediction]:
        """Slide id → prediction of slides that are done, from what they left in the output folder."""
        from wsi_ncmi.extraction.ledger import read_ledger

        ledger = self._extraction.out / "ledger.csv"
        if not slide_ids or not ledger.is_file():
            return {}
        records = self._records()
        rows = [row for row in read_ledger(ledger) if row.slide_id in slide_ids]
        return {row.slide_id: self._predict(row, records)[0] for row in rows}

    def _predict(self, row: LedgerRow, records: SlideRecords) -> tuple[SlidePrediction, str, str]:
        """As :meth:`SlideRecords.predict`, of any slide of the ledger."""
        if row.status == "failed":
            records.retire(row.slide_id)
            prediction, problem, no_dicom = no_prediction(row.slide_id, row.reason), row.reason, ""
        else:
            case_id = self._cases.get(slide_key(row.slide_id), "")
            prediction, problem, no_dicom = records.predict(row.slide_id, case_id)
        return self._of_patient(prediction.by(self.bundle)), problem, no_dicom

    def _of_patient(self, prediction: SlidePrediction) -> SlidePrediction:
        return replace(prediction, case_id=self._cases.get(slide_key(prediction.slide_id), ""))

    def _records(self) -> SlideRecords:
        out = self._extraction.out
        return SlideRecords(
            self.bundle,
            self.config,
            features=feature_folder(out, self._extraction.encoder.name),
            slides=out / "slides.csv",
            timed=self._timed,
            slide_encoder=self._slide_encoder,
        )

    def check_encoder(self) -> None:
        """Refuses an encoder that differs from the models' now, not with the first slide.

        Raises:
            InputError: It differs or can't be loaded.
        """
        from wsi_ncmi.extraction.execution.local import open_engine

        config = self._extraction
        encoder = resolve_weights(config.encoder, config.weights_dir)
        with open_engine(config.extraction, encoder) as engine:
            self._check_encoder(engine.encoder)

    def _check_encoder(self, encoder: EncoderInfo) -> None:
        grid = self._extraction.grid
        found = {
            "encoder": encoder.name,
            "encoder_weights_sha256": encoder.weights_sha256,
            "transform": encoder.transform,
            "mpp_target": grid.mpp,
            "tile_px": grid.tile_px,
            "overlap_px": grid.overlap_px,
        }
        of_tiles = tile_origin(self.bundle.features, f"the model {self.bundle.name}")
        check_features(replace(self.bundle.ensemble, features=of_tiles), found)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
            if stage in _OF_EACH_SLIDE:
                self.timings.append((stage, seconds))
