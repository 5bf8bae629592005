"""The export job: a trained run to one bundle that another machine can use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.core.provenance import read_record
from wsi_ncmi.prediction import Calibration, ModelBundle, load_bundle, load_ensemble, write_bundle
from wsi_ncmi.prediction.bundle.writing import bundle_files
from wsi_ncmi.prediction.calibration import fit_calibration, selective_table
from wsi_ncmi.prediction.card import INTENDED_USE, LIMITS, render_card
from wsi_ncmi.prediction.ensemble import Ensemble, model_folders
from wsi_ncmi.prediction.portable import export_portable
from wsi_ncmi.prediction.reference import fit_reference
from wsi_ncmi.training.checkpoint import MODEL_JSON, MODEL_WEIGHTS
from wsi_ncmi.training.runs import PREDICTIONS, VALIDATION, read_predictions
from wsi_ncmi.workflows.reports import LEAKING
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.training_slides import samples_of, training_features

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ExportRequest", "export"]

_METRICS = ("macro_f1", "balanced_accuracy", "accuracy", "auroc_macro_ovr", "kappa_quadratic", "ece", "ncmi")
_KINDS: tuple[Literal["torchscript", "onnx"], ...] = ("torchscript", "onnx")


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and how.

    Attributes:
        run: Run folder with models of one loss, or the folder of a single model.
        out: Folder, or a name that ends in ``.zip``.
        features: Features of the training; None looks beside the run.
        reference: Whether the bundle gets statistics of the training slides.
        coverage: Share of validation slides that the threshold answers; 1 = always answer.
        abstain_below: Threshold to use in place of that.
        name: Name of the model; default: that of the run's folder.
        intended_use: What the model is for.
        limits: What it is not for.
        torchscript: Add each member as TorchScript.
        onnx: Add each member as ONNX.
        overwrite: Replace a bundle that is there.
    """

    run: Path
    out: Path
    features: Path | None = None
    reference: bool = True
    coverage: float = 0.9
    abstain_below: float | None = None
    name: str | None = None
    intended_use: str = INTENDED_USE
    limits: str = LIMITS
    torchscript: bool = False
    onnx: bool = False
    overwrite: bool = False


def export(request: ExportRequest, progress: ProgressReporter | None = None) -> JobResult:
    """Writes the bundle of a run and loads it once, so that what is handed over is known to load.

    Args:
        request: What and how.
        progress: Told about the training slides.

    Returns:
        Path of ``bundle``; notes on what it holds.

    Raises:
        InputError: No models, features of another kind, or a place that can't be written to.
    """
    progress = progress or NullProgress()
    if request.out.exists() and not request.overwrite:
        raise InputError(f"{request.out} exists already; choose another --out, or pass --overwrite.")
    if request.abstain_below is not None and not 0 <= request.abstain_below <= 1:
        raise InputError(f"The threshold must be between 0 and 1, got {request.abstain_below}.")
    ensemble = load_ensemble(request.run)
    folders = model_folders(request.run)
    tables = _tables(folders)
    notes: list[str] = []
    bundle = ModelBundle(
        ensemble=replace(ensemble, name=request.name or ensemble.name),
        calibration=_calibration(request, ensemble, tables, notes),
        summary=_summary(request.run, folders, ensemble, tables),
        intended_use=request.intended_use,
        limits=request.limits,
    )
    if request.reference:
        test = tables[PREDICTIONS]
        if test is None:
            raise InputError(
                f"{request.run} has no {PREDICTIONS}, so it isn't known which slides it was trained on; pass "
                "--without-reference."
            )
        source = training_features(request.run, request.features, ensemble)
        patients = dict(zip(test["slide_id"], test["case_id"], strict=True))
        bundle = replace(bundle, reference=fit_reference(samples_of(source, patients, ensemble, progress)))
    else:
        notes.append("No statistics of the training slides are in the bundle: predict will flag nothing.")
    portable, differences = _portable(request, ensemble, folders)
    test = tables[PREDICTIONS]
    selective = None if test is None else selective_table(test, bundle.classes, bundle.calibration)
    member_files = {
        _member_name(folder): ((folder / MODEL_JSON).read_bytes(), (folder / MODEL_WEIGHTS).read_bytes())
        for folder in folders
    }
    files = bundle_files(
        bundle, member_files, card=render_card(bundle, selective, differences), portable=portable
    )
    write_bundle(request.out, files, overwrite=request.overwrite)
    load_bundle(request.out)
    size = sum(len(content) for content in files.values())
    notes.insert(
        0,
        f"{len(folders)} models, classes {', '.join(bundle.classes)}, {size / 1e6:.1f} MB; the model "
        f"card is in it.",
    )
    return JobResult({"bundle": request.out}, notes=tuple(notes))


def _member_name(folder: Path) -> str:
    if folder.parent.name.startswith("fold_"):
        return f"{folder.parent.name}-{folder.name}"
    return "model"


def _tables(folders: list[Path]) -> dict[str, pd.DataFrame | None]:
    """Validation and test predictions of all members, None where a member has none."""
    import pandas as pd

    found: dict[str, pd.DataFrame | None] = {}
    for name in (VALIDATION, PREDICTIONS):
        files = [folder / name for folder in folders]
        whole = all(file.is_file() for file in files)
        found[name] = (
            pd.concat([read_predictions(file) for file in files], ignore_index=True) if whole else None
        )
    return found


def _calibration(
    request: ExportRequest, ensemble: Ensemble, tables: Mapping[str, pd.DataFrame | None], notes: list[str]
) -> Calibration:
    validation = tables[VALIDATION]
    if validation is None:
        notes.append(
            f"{request.run.name} has no validation predictions: the probabilities are not calibrated "
            f"and nothing "
            "is abstained from but below --abstain-below."
        )
        return Calibration(abstain_below=request.abstain_below or 0.0)
    calibration = fit_calibration(validation, ensemble.classes, coverage=request.coverage)
    if request.abstain_below is None:
        return calibration
    words = f"{calibration.fitted_on.split(';')[0]}; the threshold was given"
    return replace(calibration, abstain_below=request.abstain_below, fitted_on=words)


def _summary(
    run: Path, folders: list[Path], ensemble: Ensemble, tables: Mapping[str, pd.DataFrame | None]
) -> dict[str, Any]:
    """What the run's own files tell of its training, JSON-ready."""
    above = next((folder for folder in (run, run.parent) if (folder / "metrics.json").is_file()), None)
    summary: dict[str, Any] = {"cohort": {}, "metrics": {}}
    test = tables[PREDICTIONS]
    if test is not None:
        slides = test.drop_duplicates("slide_id")
        counts = Counter(slides["label"])
        summary["cohort"] = {
            "slides": len(slides),
            "patients": int(slides["case_id"].nunique()),
            "slides_per_class": ", ".join(f"{name} {counts[name]}" for name in ensemble.classes),
        }
        if "centre" in slides.columns:
            summary["cohort"]["centres"] = int(slides["centre"].nunique())
    summary["cohort"]["folds_and_seeds"] = len(folders)
    if above is not None:
        metrics = json.loads((above / "metrics.json").read_text(encoding="utf-8"))
        if metrics.get("loss") != run.name and run.name in metrics.get("losses", {}):
            metrics = metrics["losses"][run.name]
        summary["metrics"] = {
            name: {key: metrics[name].get(key) for key in ("value", "ci_low", "ci_high")}
            for name in _METRICS
            if name in metrics
        }
        record = read_record(above / "run.json")
        if record.get("leaks"):
            summary["cohort"]["warning"] = LEAKING
        summary["hashes"] = dict(record.get("hashes") or {})
        summary["software"] = str((record.get("provenance") or {}).get("software", ""))
    return summary


def _portable(
    request: ExportRequest, ensemble: Ensemble, folders: list[Path]
) -> tuple[dict[str, bytes], dict[str, float]]:
    wanted = dict(zip(_KINDS, (request.torchscript, request.onnx), strict=True))
    contents: dict[str, bytes] = {}
    differences: dict[str, float] = {}
    for kind in (kind for kind in _KINDS if wanted[kind]):
        for folder, member in zip(folders, ensemble.members, strict=True):
            name = f"{_member_name(folder)}.{kind}"
            contents[name], differences[name] = export_portable(member, kind)
    return contents, differences
