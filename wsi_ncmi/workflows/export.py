"""Exporting a trained run as one bundle that another machine can use."""

from dataclasses import replace

from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.config.keywords import takes_settings
from wsi_ncmi.core.errors import InputError, counted
from wsi_ncmi.core.progress import NullProgress, ProgressReporter
from wsi_ncmi.prediction.bundle import ModelBundle, bundle_files, load_bundle
from wsi_ncmi.prediction.calibration import selective_table
from wsi_ncmi.prediction.config import ExportConfig
from wsi_ncmi.prediction.ensemble import headline_folder, load_ensemble, model_folders
from wsi_ncmi.prediction.export import (
    calibrate,
    member_name,
    portable_files,
    read_tables,
    render_card,
    summarise,
)
from wsi_ncmi.prediction.ood_fitting import find_features, fit_ood_detector, training_samples
from wsi_ncmi.training.bundle_io import write_bundle
from wsi_ncmi.training.checkpoint import MODEL_JSON, MODEL_WEIGHTS
from wsi_ncmi.training.runs import PREDICTIONS
from wsi_ncmi.workflows.result import JobResult


@takes_settings("wsi_ncmi.prediction:ExportConfig", "run", "out")
def export(config: ExportConfig, progress: ProgressReporter | None = None) -> JobResult:
    """Writes the bundle of a run and loads it once, to prove that it can be loaded.

    Args:
        config: Run, content and target.
        progress: Shows the training slides.

    Returns:
        Path of ``bundle``; notes on its content.

    Raises:
        InputError: No models, features of another kind, or a place that can't be written to.
    """
    progress = progress or NullProgress()
    if config.out.exists() and not config.overwrite:
        raise InputError(f"{config.out} exists already; choose another --out, or pass --overwrite.")
    notes: list[str] = []
    run = headline_folder(config.run)
    if run != config.run:
        notes.append(f"{config.run} holds several losses; the headline, {run.name}, is exported ({run}).")
        config = replace(config, run=run)
    ensemble = load_ensemble(run)
    folders = model_folders(run)
    tables = read_tables(folders)
    bundle = ModelBundle(
        ensemble=replace(ensemble, name=config.name or ensemble.name),
        calibration=calibrate(config, ensemble, tables, notes),
        summary=summarise(run, folders, ensemble, tables),
        intended_use=config.intended_use,
        limits=config.limits,
        version=config.version,
    )
    test = tables[PREDICTIONS]
    if config.reference:
        if test is None:
            raise InputError(
                f"{run} has no {PREDICTIONS}, so it isn't known which slides it was trained on; pass "
                "--without-reference."
            )
        source = open_bag_source(find_features(run, config.features, ensemble))
        notes.append(f"Statistics of the training slides were computed from the features in {source.path}.")
        patients = dict(zip(test["slide_id"], test["case_id"], strict=True))
        samples = training_samples(source, patients, ensemble, progress)
        bundle = replace(bundle, ood=fit_ood_detector(samples))
    else:
        notes.append("No statistics of the training slides are in the bundle: predict will flag nothing.")
    portable, differences = portable_files(config, ensemble, folders)
    selective = None if test is None else selective_table(test, bundle.classes, bundle.calibration)
    member_files = {
        member_name(folder): ((folder / MODEL_JSON).read_bytes(), (folder / MODEL_WEIGHTS).read_bytes())
        for folder in folders
    }
    card = render_card(bundle, selective, differences)
    files = bundle_files(bundle, member_files, card=card, portable=portable)
    write_bundle(config.out, files, overwrite=config.overwrite)
    load_bundle(config.out, check_signed=False)  # it is signed after this
    size = sum(len(content) for content in files.values())
    notes.insert(
        0,
        f"{counted(len(folders), 'model')}, classes {', '.join(bundle.classes)}, {size / 1e6:.1f} MB, with "
        "model card.",
    )
    return JobResult({"bundle": config.out}, notes=tuple(notes))
