"""Small trained models and bundles for the tests of prediction and of the workflows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsi_ncmi.losses import build_loss, loss_config
from wsi_ncmi.mil import ModelConfig, build_aggregator, model_config
from wsi_ncmi.prediction import ModelBundle, load_ensemble
from wsi_ncmi.prediction.bundle import bundle_files
from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.config import ExportConfig, PredictConfig
from wsi_ncmi.prediction.export import render_card
from wsi_ncmi.prediction.ood import SlideProperties
from wsi_ncmi.prediction.ood_fitting import SlideSample, fit_ood_detector, sample_slide
from wsi_ncmi.training import write_bundle
from wsi_ncmi.training.checkpoint import write_trained

FEATURES = {
    "encoder": "descriptor", "encoder_weights_sha256": "none",
    "transform": "descriptor 1; own size; tile white point; Ruifrok-Johnston HED",
    "precision": "fp32", "mpp_target": 0.5, "tile_px": 256, "overlap_px": 0, "stain": "none",
}  # fmt: skip
CARD = ExportConfig(run=Path("run"), out=Path("out"))
COLOUR = {"density": 0.8, "cx": -0.2, "cy": 0.4}


def abstaining(**settings: Any) -> PredictConfig:
    """A config that only says when to abstain."""
    return PredictConfig(slides=Path("slides"), model=Path("model"), out=Path("out"), **settings)


def write_model(
    folder: Path, seed: int, classes: tuple[str, ...] = ("a", "b"), width: int = 6,
    model: ModelConfig | None = None, **features: Any,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    options, loss = model or model_config(hidden=8, attention=4), loss_config(name="ncmi")
    aggregator = build_aggregator(options, width)
    criterion = build_loss(loss, len(classes), aggregator.embedding_width, (5,) * len(classes))
    folder.mkdir(parents=True, exist_ok=True)
    write_trained(
        folder, aggregator, criterion, classes=classes, model=options, loss=loss,
        class_counts=(5,) * len(classes), extra={"encoder": {**FEATURES, **features}},
    )  # fmt: skip


def write_run(folder: Path, folds: int = 2, **model: Any) -> Path:
    for fold in range(folds):
        write_model(folder / f"fold_{fold}" / "seed_0", fold, **model)
    return folder


def sample(number: int, width: int = 6, shift: float = 0.0, tiles: int = 60) -> SlideSample:
    rng = np.random.default_rng(number)
    features = (rng.normal(size=(tiles, width)) + shift + 0.3 * rng.normal(size=width)).astype(np.float16)
    colour = {name: value + 0.01 * (number % 5) for name, value in COLOUR.items()}
    return sample_slide(f"p{number // 2}", features, SlideProperties(0.25 + 0.25 * (number % 2), colour))


def make_bundle(
    run: Path, *, reference: bool = True, calibration: Calibration | None = None, width: int = 6
) -> ModelBundle:
    return ModelBundle(
        load_ensemble(run),
        calibration or Calibration(2.0, 0.6, "validation slides of 2 folds", 30),
        fit_ood_detector(sample(i, width) for i in range(24)) if reference else None,
        {"cohort": {"slides": 24, "odd | name": "a|b"}, "metrics": {"macro_f1": {"value": 0.9, "ci_low": 0.8, "ci_high": None}}},
        CARD.intended_use, CARD.limits,
    )  # fmt: skip


def export(bundle: ModelBundle, run: Path, out: Path) -> Path:
    members = {
        f"fold_{i}-seed_0": tuple((run / f"fold_{i}" / "seed_0" / name).read_bytes() for name in ("model.json", "model.safetensors"))
        for i in range(len(bundle.ensemble.members))
    }  # fmt: skip
    write_bundle(out, bundle_files(bundle, members, card=render_card(bundle, None, {})))
    return out
