"""The prediction job: new slides and a trained run to predictions, attention and a page."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.encoders.options import EncoderOptions
from wsi_ncmi.errors import InputError
from wsi_ncmi.files import atomic_path, ensure_folder
from wsi_ncmi.jobs.config import ExtractionOptions
from wsi_ncmi.jobs.config_file import build_options
from wsi_ncmi.jobs.extraction import ExtractionRequest, extract, resolve_weights
from wsi_ncmi.jobs.feature_origin import artifacts_of, stain_of
from wsi_ncmi.jobs.records import write_record
from wsi_ncmi.jobs.result import JobResult
from wsi_ncmi.prediction import (
    Ensemble,
    SlidePrediction,
    check_features,
    load_ensemble,
    predict_bags,
    write_attention_geojson,
    write_prediction_page,
)
from wsi_ncmi.progress import NullProgress, ProgressReporter
from wsi_ncmi.tiling import GridOptions
from wsi_ncmi.tissue import TissueOptions

__all__ = ["PredictionRequest", "predict"]


@dataclass(frozen=True)
class PredictionRequest:
    """What to predict, and with which models.

    Attributes:
        slides: Folder of slides, or one slide.
        model: Run folder.
        out: Output folder; features in it are reused.
        weights: Encoder weights, file or folder, where the encoder has any.
        weights_dir: Folder of encoder weights.
        extraction: Processes and time limit.
        mpp_table: CSV of resolutions by slide.
        default_mpp: Resolution where nothing else gives it.
        device: Where the encoder runs.
    """

    slides: Path
    model: Path
    out: Path
    weights: Path | None = None
    weights_dir: Path | None = None
    extraction: ExtractionOptions = field(default_factory=ExtractionOptions)
    mpp_table: Path | None = None
    default_mpp: float | None = None
    device: str = "auto"


def predict(request: PredictionRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Predicts new slides with the encoder, grid and tissue settings that the models were trained with.

    Args:
        request: What and with which models.
        progress: Told about every slide.

    Returns:
        Paths of ``predictions``, ``report``, ``attention`` and ``ledger``; a failure for every slide that
        could not be read.

    Raises:
        InputError: The models don't say what made their features, or the encoder at hand differs from theirs.
    """
    from wsi_ncmi.encoders import load_encoder
    from wsi_ncmi.features import open_features_file, read_ledger

    progress = progress or NullProgress()
    ensemble = load_ensemble(request.model)
    encoder_options, grid, tissue = _settings(ensemble, request)
    encoder = load_encoder(resolve_weights(encoder_options, request.weights_dir))
    check_features(
        ensemble,
        {
            "encoder": encoder.name,
            "encoder_weights_sha256": encoder.weights_sha256,
            "transform": encoder.transform,
            "mpp_target": grid.mpp,
            "tile_px": grid.tile_px,
            "overlap_px": grid.overlap_px,
        },
    )
    where = f"the model {ensemble.name}"
    out = ensure_folder(request.out)
    extracted = extract(
        ExtractionRequest(
            slides=request.slides,
            out=out,
            encoder=encoder_options,
            tissue=tissue,
            grid=grid,
            extraction=request.extraction,
            mpp_table=request.mpp_table,
            default_mpp=request.default_mpp,
            weights_dir=request.weights_dir,
            artifacts=artifacts_of(ensemble.features, where),
            stain_target=stain_of(ensemble.features, where),
        ),
        progress,
    )
    rows = read_ledger(extracted.files["ledger"])
    problems = {row.slide_id: row.reason for row in rows if row.status == "failed"}
    ready = tuple(row.slide_id for row in rows if row.status != "failed")
    if not ready:
        raise InputError(
            f"None of the {len(rows)} slides below {request.slides} could be read; see {out / 'ledger.csv'}."
        )
    features = extracted.files["features"]
    attention = ensure_folder(out / "attention")

    def keep_attention(slide_id: str, answer: SlidePrediction) -> None:
        found = open_features_file(features / f"{slide_id}.h5")
        size = (
            float(found.attrs["tile_size_level0_x"]),
            float(found.attrs["tile_size_level0_y"]),
        )
        write_attention_geojson(attention / f"{slide_id}.geojson", found.coords, size, answer.attention)

    table = predict_bags(
        ensemble,
        open_bag_source(features),
        slide_ids=ready,
        problems=problems,
        on_slide=keep_attention,
        progress=progress,
    )
    files = {"predictions": out / "predictions.csv", "report": out / "report.html", "attention": attention}
    with atomic_path(files["predictions"]) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    record = write_record(
        out / "predict.json",
        config={
            "model": request.model,
            "members": len(ensemble.members),
            "features": dict(ensemble.features),
        },
        classes=list(ensemble.classes),
    )
    write_prediction_page(
        files["report"],
        table,
        ensemble,
        thumbnails=out / "thumbnails",
        provenance=record["provenance"],
    )
    return JobResult({**extracted.files, **files}, extracted.failures, extracted.notes)


def _settings(
    ensemble: Ensemble, request: PredictionRequest
) -> tuple[EncoderOptions, GridOptions, TissueOptions]:
    known = dict(ensemble.features)
    missing = [key for key in ("encoder", "mpp_target", "tile_px", "overlap_px") if known.get(key) is None]
    if missing:
        raise InputError(
            f"The model {ensemble.name} does not say which {missing[0]} its features had (it was trained on "
            "features that were not made by 'wsi-ncmi extract'), so new slides can't be encoded alike."
        )
    where = f"the model {ensemble.name}"
    encoder: EncoderOptions = build_options(
        EncoderOptions,
        {"name": known["encoder"], "weights": request.weights, "device": request.device},
        where,
    )
    if known.get("precision") in ("fp32", "bf16", "fp16"):
        encoder = replace(encoder, precision=known["precision"])
    grid: dict[str, Any] = {"mpp": known["mpp_target"], "tile_px": known["tile_px"]}
    grid["overlap_px"] = known["overlap_px"]
    grid["scaled_decoding"] = known.get("decoding") == "scaled"
    if known.get("min_tissue") is not None:
        grid["min_tissue"] = known["min_tissue"]
    tissue = json.loads(known["tissue_parameters"]) if known.get("tissue_parameters") else {}
    if known.get("tissue_method"):
        tissue["method"] = known["tissue_method"]
    return (
        encoder,
        build_options(GridOptions, grid, where),
        build_options(TissueOptions, tissue, where),
    )
