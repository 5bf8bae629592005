"""The prediction job: new slides and a model to answers, explanations and pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.encoders.weights_folder import resolve_weights
from wsi_ncmi.extraction.config import ExecutionConfig, ExtractConfig
from wsi_ncmi.prediction import ModelBundle, check_features, load_model
from wsi_ncmi.prediction.answer import AnswerRules, SlideAnswer, no_answer
from wsi_ncmi.workflows.extraction import extract
from wsi_ncmi.workflows.feature_origin import artifacts_of, stain_of
from wsi_ncmi.workflows.model_settings import model_settings
from wsi_ncmi.workflows.prediction_files import notes_of, publish_predictions, read_cases
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.slide_answers import Explanations, SlideAnswers

if TYPE_CHECKING:
    pass

__all__ = ["PredictionRequest", "Predictor", "predict"]

_SCHEMA = "wsi-ncmi-predictions/1"


@dataclass(frozen=True)
class PredictionRequest:
    """What to predict, and with which models.

    Attributes:
        slides: Folder of slides, or one slide.
        model: Bundle or run folder.
        out: Output folder; features in it are reused.
        cache: Output folder of an extraction, whose features are reused (and added to) in place of ``out``.
        weights: Encoder weights, file or folder, where the encoder has any.
        weights_dir: Folder of encoder weights.
        extraction: Processes and time limit.
        mpp_table: CSV of resolutions by slide.
        default_mpp: Resolution where nothing else gives it.
        device: Where the encoder runs.
        cases: CSV with ``slide_id,case_id``: patients of the slides; None = nothing is said of patients.
        rules: When there is no answer.
        explanations: Heatmaps and pages of the single slides.
    """

    slides: Path
    model: Path
    out: Path
    cache: Path | None = None
    weights: Path | None = None
    weights_dir: Path | None = None
    extraction: ExecutionConfig = field(default_factory=ExecutionConfig)
    mpp_table: Path | None = None
    default_mpp: float | None = None
    device: str = "auto"
    cases: Path | None = None
    rules: AnswerRules = field(default_factory=AnswerRules)
    explanations: Explanations = field(default_factory=Explanations)


def predict(request: PredictionRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Predicts new slides with the encoder, grid and tissue settings that the models were trained with.

    Args:
        request: What and with which models.
        progress: Told about every slide.

    Returns:
        Paths of ``predictions``, ``answers`` (JSON), ``report``, ``attention``, ``ledger`` and, with
        patients, ``patients``; a failure for every slide that could not be predicted for a fault of its own.

    Raises:
        InputError: The models don't say what made their features, or the encoder at hand differs from theirs.
    """
    return Predictor(request).run(progress)


class Predictor:
    """A prediction job that may run again and again on a growing folder; what is done is not done twice.

    Args:
        request: What and with which models.

    Attributes:
        problems: Slide id → why it has no answer or no pictures, of the slides of the last run.

    Raises:
        InputError: As :func:`predict`.
    """

    def __init__(self, request: PredictionRequest) -> None:
        from wsi_ncmi.encoders import load_encoder

        self.request = request
        self.problems: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        with self._timed("model"):
            self.bundle: ModelBundle = load_model(request.model)
            encoder_options, grid, tissue = model_settings(
                self.bundle.ensemble, weights=request.weights, device=request.device
            )
            encoder = load_encoder(resolve_weights(encoder_options, request.weights_dir)).info
        check_features(
            self.bundle.ensemble,
            {
                "encoder": encoder.name,
                "encoder_weights_sha256": encoder.weights_sha256,
                "transform": encoder.transform,
                "mpp_target": grid.mpp,
                "tile_px": grid.tile_px,
                "overlap_px": grid.overlap_px,
            },
        )
        where = f"the model {self.bundle.name}"
        self.out = ensure_folder(request.out)
        self.cases = {} if request.cases is None else read_cases(request.cases)
        self._extraction = ExtractConfig(
            slides=request.slides,
            out=request.cache or self.out,
            encoder=encoder_options,
            tissue=tissue,
            grid=grid,
            extraction=request.extraction,
            mpp_table=request.mpp_table,
            default_mpp=request.default_mpp,
            weights_dir=request.weights_dir,
            artifacts=artifacts_of(self.bundle.features, where),
        )
        self._stain = stain_of(self.bundle.features, where)

    def run(
        self, progress: ProgressReporter | None = None, slide_ids: frozenset[str] | None = None
    ) -> JobResult:
        """Extracts and predicts; tables and pages are about all slides of the ledger.

        Args:
            progress: Told about every slide.
            slide_ids: Slides to extract; None = all.

        Raises:
            InputError: As :func:`predict`.
        """
        from wsi_ncmi.extraction.ledger import read_ledger

        progress = progress or NullProgress()
        with self._timed("extraction"):
            extracted = extract(self._extraction, progress, slide_ids=slide_ids, stain=self._stain)
        rows = read_ledger(extracted.files["ledger"])
        maker = SlideAnswers(
            self.bundle,
            features=extracted.files["features"],
            slides=extracted.files["slides"],
            root=self.request.slides,
            out=self.out,
            rules=self.request.rules,
            explanations=self.request.explanations,
            timed=self._timed,
        )
        answers: list[SlideAnswer] = []
        problems: dict[str, str] = {}
        with progress.task("predicting", len(rows), "slides") as task:
            for row in rows:
                case_id = self.cases.get(row.slide_id, "")
                if row.status == "failed":
                    answer, problem = no_answer(row.slide_id, row.reason), row.reason
                else:
                    answer, problem = maker.answer(row.slide_id, case_id)
                answers.append(replace(answer, case_id=case_id))
                if problem and (slide_ids is None or row.slide_id in slide_ids):
                    problems[row.slide_id] = problem
                task.advance(1, row.slide_id)
        self.problems = problems
        files = publish_predictions(
            self.out,
            self.bundle,
            answers,
            request=self.request,
            thumbnails=extracted.files["slides"].parent / "thumbnails",
            with_patients=bool(self.cases),
            seconds=self._seconds,
        )
        return JobResult(
            {**extracted.files, **files},
            tuple(f"{slide_id}: {problem}" for slide_id, problem in problems.items()),
            (*extracted.notes, *notes_of(answers, self.bundle, self._seconds)),
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - started
