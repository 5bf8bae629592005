"""``wsi-ncmi predict``."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given
from wsi_ncmi.core.errors import InputError

_LOG = logging.getLogger(__name__)

DICOM_FLAGS = {
    "dicom.write": Flag(
        name="--dicom", panel="DICOM", help="Tiles and answer as DICOM objects in the slide's study."
    ),
    "dicom.map": Flag(
        name="--dicom-map", panel="DICOM", help="Add a parametric map on a level of the slide's pyramid."
    ),
    "dicom.patient": Flag(
        name="--dicom-patient", panel="DICOM", help="Copy patient, study and specimen from the slide."
    ),
}

FLAGS = ConfigFlags(
    "wsi_ncmi.prediction.config.PredictConfig",
    {
        "slides": Flag(argument=True, there=True),
        "model": Flag(required=True, there=True),
        "out": Flag(required=True, folder=True),
        "shadow": Flag(metavar="MODEL", there=True),
        "cache": Flag(metavar="DIR", folder=True),
        "cases": Flag(metavar="CSV", there=True),
        "mpp_table": Flag(metavar="CSV", there=True),
        "default_mpp": Flag(),
        "known_failures": Flag(metavar="CSV", there=True),
        "abstain_below": Flag(
            panel="Decision", metavar="P", help="No decision below this probability (the bundle's own)."
        ),
        "ood_threshold": Flag(panel="Decision", metavar="X"),
        "heatmaps": Flag(
            name="--no-heatmaps", panel="Explanation", help="No pictures and slide pages.", sets=False
        ),
        "geojson": Flag(name="--no-geojson", panel="Explanation", help="No tiles for QuPath.", sets=False),
        "scale": Flag(panel="Explanation"),
        "top": Flag(panel="Explanation"),
        **DICOM_FLAGS,
        "weights": Flag(panel="Encoder", there=True),
        "extraction.workers": Flag(panel="Machine", help="Processes (as the machine allows)."),
        "extraction.timeout_per_slide": Flag(
            panel="Machine", metavar="S", help="Seconds a slide may take (with --watch 3600)."
        ),
        "extraction.stage": Flag(panel="Machine", metavar="DIR"),
        "extraction.stage_gib": Flag(panel="Machine", metavar="GIB"),
        "device": Flag(panel="Machine"),
        "watch.interval_s": Flag(name="--interval", panel="Watching", metavar="S"),
        "watch.settle_s": Flag(name="--settle", panel="Watching", metavar="S"),
        "watch.until_idle_s": Flag(name="--until-idle", panel="Watching", metavar="S"),
        "watch.on_answer": Flag(
            panel="Watching",
            metavar="COMMAND",
            help="Run without a shell on each answer's JSON, until it takes it.",
        ),
        "watch.audit_log": Flag(panel="Watching", metavar="DIR", folder=True),
        "watch.metrics": Flag(panel="Watching", metavar="FILE.prom"),
        "watch.metrics_port": Flag(panel="Watching", metavar="PORT"),
        "watch.answer_again": Flag(panel="Watching"),
    },
)


def command(
    given: Given,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep predicting what arrives in SLIDES.", rich_help_panel="Watching"),
    ] = False,
    unlike: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Predict new slides: features, ensemble, calibrated decision or abstention, flags, heatmaps, report.

    Example: wsi-ncmi predict new_slides/ --model model.zip --out predictions
    """
    idle = [flag.name for key, flag in FLAGS.table.items() if key[:6] == "watch." and key in given.values]
    if idle and not watch:
        raise InputError(f"{idle[0]} is for a watched folder; add --watch, or leave it out.")
    config = given.read({"ood_threshold": _threshold(unlike)})
    if watch:
        from wsi_ncmi.workflows.watch import watch as watch_folder

        given.finish(watch_folder(config, given.progress))
    from wsi_ncmi.workflows.predict import predict

    given.finish(predict(config, given.progress))


def _threshold(unlike: str | None) -> float | None:
    """The value of ``--ood-threshold`` that ``--unlike`` stood for in 0.1."""
    if unlike is None:
        return None
    values = {"abstain": 1.0, "flag": float("inf")}
    if unlike not in values:
        raise InputError(f"--unlike is {unlike!r}; choose abstain or flag (or use --ood-threshold).")
    _LOG.warning("--unlike %s is deprecated; use --ood-threshold %g.", unlike, values[unlike])
    return values[unlike]
