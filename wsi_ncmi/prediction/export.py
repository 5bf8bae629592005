"""Content of a bundle from a trained run: calibration, summary, model card, portable forms.

The card follows Mitchell et al., "Model Cards for Model Reporting", FAT* 2019 (arXiv 1810.03993).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from wsi_ncmi import __version__
from wsi_ncmi.cohorts.leaks import LEAKING
from wsi_ncmi.core.files import parse_json
from wsi_ncmi.core.provenance import read_record
from wsi_ncmi.metrics.confusion import class_ranks
from wsi_ncmi.prediction.bundle import ModelBundle
from wsi_ncmi.prediction.calibration import Calibration, fit_calibration
from wsi_ncmi.prediction.config import ExportConfig
from wsi_ncmi.prediction.ensemble import Ensemble
from wsi_ncmi.prediction.portable import export_portable
from wsi_ncmi.training.runs import PREDICTIONS, VALIDATION, read_run_predictions

if TYPE_CHECKING:
    import pandas as pd

_METRICS = (
    "macro_f1", "balanced_accuracy", "accuracy", "auroc_macro_ovr", "kappa", "kappa_quadratic", "ece", "ncmi",
)  # fmt: skip


def member_name(folder: Path) -> str:
    """Name of the member of a model folder: ``fold_<k>-seed_<s>``, or ``model``."""
    if folder.parent.name.startswith("fold_"):
        return f"{folder.parent.name}-{folder.name}"
    return "model"


def read_tables(folders: list[Path]) -> dict[str, pd.DataFrame | None]:
    """Validation and test predictions of all members, None where a member has none."""
    import pandas as pd

    found: dict[str, pd.DataFrame | None] = {}
    for name in (VALIDATION, PREDICTIONS):
        files = [folder / name for folder in folders]
        whole = all(file.is_file() for file in files)
        found[name] = (
            pd.concat([read_run_predictions(file) for file in files], ignore_index=True) if whole else None
        )
    return found


def calibrate(
    config: ExportConfig, ensemble: Ensemble, tables: Mapping[str, pd.DataFrame | None], notes: list[str]
) -> Calibration:
    """Temperature and threshold of a run, from its validation slides.

    Args:
        config: Coverage or threshold.
        ensemble: The run's models.
        tables: From :func:`read_tables`.
        notes: A sentence is added where there are no validation predictions.
    """
    validation = tables[VALIDATION]
    if validation is None:
        notes.append(
            f"{config.run.name} has no validation predictions: the probabilities are not calibrated and "
            "nothing is abstained from but below --abstain-below."
        )
        return Calibration(abstain_below=config.abstain_below or 0.0)
    calibration = fit_calibration(validation, ensemble.classes, coverage=config.coverage)
    if config.abstain_below is None:
        return calibration
    words = f"{calibration.fitted_on.split(';')[0]}; the threshold was given"
    return replace(calibration, abstain_below=config.abstain_below, fitted_on=words)


def summarise(
    run: Path, folders: list[Path], ensemble: Ensemble, tables: Mapping[str, pd.DataFrame | None]
) -> dict[str, Any]:
    """Cohort, metrics and hashes of a run from its files, JSON-ready."""
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
        metrics = parse_json((above / "metrics.json").read_text(encoding="utf-8"))
        if metrics.get("loss") != run.name and run.name in metrics.get("losses", {}):
            metrics = metrics["losses"][run.name]
        ordered = metrics.get("order") or class_ranks(ensemble.classes) is not None
        summary["metrics"] = {
            name: {key: metrics[name].get(key) for key in ("value", "ci_low", "ci_high")}
            for name in _METRICS
            # 0.1.0 took the alphabet for the order of any classes.
            if name in metrics and (name != "kappa_quadratic" or ordered)
        }
        record = read_record(above / "run.json")
        if record.get("leaks"):
            summary["cohort"]["warning"] = LEAKING
        summary["hashes"] = dict(record.get("hashes") or {})
        summary["software"] = str((record.get("provenance") or {}).get("software", ""))
    return summary


def portable_files(
    config: ExportConfig, ensemble: Ensemble, folders: list[Path]
) -> tuple[dict[str, bytes], dict[str, float]]:
    """The members as TorchScript or ONNX, by file name, and how far each is from its model.

    Raises:
        InputError: A member can't be exported, or the exported one predicts otherwise.
    """
    contents: dict[str, bytes] = {}
    differences: dict[str, float] = {}
    kinds: list[Literal["torchscript", "onnx"]] = []
    kinds += ["torchscript"] if config.torchscript else []
    kinds += ["onnx"] if config.onnx else []
    for kind in kinds:
        for folder, member in zip(folders, ensemble.members, strict=True):
            name = f"{member_name(folder)}.{kind}"
            contents[name], differences[name] = export_portable(member, kind)
    return contents, differences


@cache
def _environment() -> Environment:
    # Markdown, not HTML: nothing to escape but the pipes of tables.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("wsi_ncmi.prediction"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|").replace("\n", " ")
    return environment


def render_card(
    bundle: ModelBundle, selective: Mapping[str, float] | None, portable: Mapping[str, Any]
) -> str:
    """Renders the card.

    Args:
        bundle: The model.
        selective: Effect of calibration and threshold on out-of-fold test slides
            (:func:`wsi_ncmi.prediction.calibration.selective_table`); None where the run has none.
        portable: Name of each additional form of the models → how far it is from them.

    Returns:
        Markdown.
    """
    first = bundle.ensemble.members[0].config
    return (
        _environment()
        .get_template("model_card.md.j2")
        .render(
            bundle=bundle,
            summary=bundle.summary,
            model=dict(first["model"]),
            loss=dict(first["loss"]),
            selective=selective,
            portable=portable,
            version=__version__,
        )
    )
