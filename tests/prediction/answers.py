"""Output folders of ``predict`` as the viewer reads them, without a model or, but for one slide, slides."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from wsi_ncmi.extraction import LedgerRow, write_ledger
from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.ood import OodFlag
from wsi_ncmi.prediction.slide_prediction import SlidePrediction
from wsi_ncmi.reporting.heatmaps import TileLayer, TileValues, write_tiles_geojson
from wsi_ncmi.slides.record import SlideRecord, write_slides_csv
from wsi_ncmi.synthesis import write_pyramid

CLASSES = ("negative", "tumour")
SIZE = (1024, 768)


def answer(slide_id: str, p: float = 0.9, **changes: object) -> SlidePrediction:
    """The answer ``tumour`` with that probability."""
    content: dict[str, object] = {
        "prediction": "tumour", "decision": "tumour", "probabilities": {"negative": 1 - p, "tumour": p},
        "confidence": p, "spread": {"negative": 0.0, "tumour": 0.0}, "agreement": 1.0, "tiles": 10,
    }  # fmt: skip
    return SlidePrediction(slide_id, **{**content, **changes})  # type: ignore[arg-type]


FAILED = SlidePrediction("d failed", reason="it can't be opened")
ABSTAINED = answer(
    "c abstained? 100%", 0.6, decision="abstain", reason="its largest probability is below 0.700"
)
FLAGGED = answer("b flagged", 0.8, flags=(OodFlag("few_tiles", "10 tiles, at least 50", 5.0),), ood_score=2.0)
SOUND = answer("a sound", 0.95, case_id="p1")
SURE = answer("s", 0.99, case_id="p2")
ALL = (SOUND, FLAGGED, ABSTAINED, FAILED, SURE)


def write_answers(
    folder: Path, answers: Iterable[SlidePrediction] = ALL, model: str = "first", digest: str = "1" * 64
) -> Path:
    """Writes ``predictions.json``, and a ledger in which one slide has a remark on its quality."""
    folder.mkdir(exist_ok=True)
    content = {
        "model": {"name": model, "digest": digest, "classes": list(CLASSES)},
        "calibration": Calibration(slides=1000, errors=0, supported=dict.fromkeys(CLASSES, 0.98)).to_json(),
        "slides": [each.to_json() for each in answers],
    }
    (folder / "predictions.json").write_text(json.dumps(content))
    write_ledger([LedgerRow("s", "s.svs", "done", "5 tiles can't be read", tiles=10)], folder / "ledger.csv")
    return folder


def write_slide(slides: Path, folder: Path, slide_id: str = "s") -> None:
    """Draws a slide, and what ``predict`` leaves of it in its output folder."""
    slides.mkdir(exist_ok=True)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    pixels = np.stack([200 + x // 20, 150 + y // 10, 180 + 0 * x], axis=2).astype(np.uint8)
    write_pyramid(slides / f"{slide_id}.svs", pixels, 0.5)
    record = SlideRecord(
        slide_id, f"{slide_id}.svs", "openslide", "aperio", *SIZE, 1, 0.5, 0.5, "slide", "f", 1
    )
    write_slides_csv([record], folder / "slides.csv")
    write_values(folder, slide_id, ("attention", "evidence negative", "evidence tumour"))


def write_values(folder: Path, slide_id: str, layers: Iterable[str]) -> TileValues:
    """The GeoJSON with values of six tiles."""
    coords = np.array([[x, y] for y in (0, 256) for x in (0, 256, 512)], np.int64)
    values = np.linspace(0.05, 0.95, 6).astype(np.float32)
    tiles = TileValues(
        slide_id, coords, (256.0, 256.0), SIZE,
        tuple(TileLayer(n, values, "attention" if n == "attention" else "evidence") for n in layers),
    )  # fmt: skip
    (folder / "attention").mkdir(exist_ok=True)
    write_tiles_geojson(folder / "attention" / f"{slide_id}.geojson", tiles, coloured_by=tiles.layers[0].name)
    return tiles
