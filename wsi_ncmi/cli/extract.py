"""``wsi-ncmi extract``."""

from __future__ import annotations

from typing import Annotated

import typer

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given
from wsi_ncmi.core.errors import InputError

FLAGS = ConfigFlags(
    "wsi_ncmi.extraction.config.ExtractConfig",
    {
        "slides": Flag(argument=True),
        "out": Flag(required=True, folder=True),
        "only": Flag(name="--list"),
        "inventory": Flag(metavar="CSV"),
        "mpp_table": Flag(metavar="CSV"),
        "default_mpp": Flag(),
        "annotations": Flag(metavar="DIR"),
        "known_failures": Flag(metavar="CSV"),
        "overwrite": Flag(),
        "dicom_id": Flag(panel="DICOM"),
        "dicom_patients": Flag(panel="DICOM"),
        "dicom_key": Flag(panel="DICOM", metavar="FILE"),
        "grid.mpp": Flag(
            panel="Tiles",
            rest="further_mpp",
            help="Target µm per pixel, auto: the encoder's own; given again, a further set of features each.",
        ),
        "grid.tile_px": Flag(panel="Tiles"),
        "grid.overlap_px": Flag(panel="Tiles"),
        "grid.min_tissue": Flag(panel="Tiles"),
        "grid.allow_upsample": Flag(panel="Tiles"),
        "grid.allow_other_grid": Flag(panel="Tiles"),
        "grid.scaled_decoding": Flag(panel="Tiles"),
        "tissue.method": Flag(name="--tissue", panel="Tiles", metavar="METHOD"),
        "artifacts.rule": Flag(
            name="--artifacts", panel="Tiles", help="Tiles with pen, folds, borders or blur."
        ),
        "stain.method": Flag(name="--stain", panel="Tiles", help="Stain normalisation."),
        "stain.reference": Flag(name="--stain-reference", panel="Tiles", metavar="FILE"),
        "encoder.name": Flag(name="--encoder", panel="Encoder"),
        "encoder.weights": Flag(panel="Encoder"),
        "weights_dir": Flag(panel="Encoder", metavar="DIR"),
        "encoder.backend": Flag(panel="Encoder"),
        "encoder.precision": Flag(panel="Encoder"),
        "encoder.batch_size": Flag(panel="Encoder"),
        "encoder.device": Flag(panel="Machine"),
        "extraction.workers": Flag(panel="Machine"),
        "extraction.timeout_per_slide": Flag(panel="Machine", metavar="S"),
        "extraction.stage": Flag(panel="Machine", metavar="DIR"),
        "extraction.stage_gib": Flag(panel="Machine", metavar="GIB"),
        "shard": Flag(panel="Cluster", metavar="I/N"),
        "extraction.engine": Flag(panel="Cluster"),
        "extraction.ray_address": Flag(panel="Cluster", metavar="HOST:PORT"),
    },
)


def command(
    given: Given,
    magnification: Annotated[
        list[float] | None,
        typer.Option(
            metavar="NUMBER", help="Another way to give --mpp: 10 / magnification.", rich_help_panel="Tiles"
        ),
    ] = None,
) -> None:
    """Find tissue, cut tiles and embed them; what is done already is skipped.

    Example: wsi-ncmi extract slides/ --out out --encoder descriptor --mpp 0.5 --tile-px 256
    """
    from wsi_ncmi.workflows import extract

    given.finish(extract(given.read(_resolutions(magnification or [])), given.progress))


def _resolutions(magnification: list[float]) -> dict[str, float | list[float]]:
    """The main magnification, and the additional ones in µm per pixel."""
    from wsi_ncmi.tiling.config import OBJECTIVE_UM

    for value in magnification:
        if not value > 0:
            raise InputError(f"--magnification takes a positive number such as 20, got {value:g}.")
    if not magnification:
        return {}
    further = [OBJECTIVE_UM / value for value in magnification[1:]]
    return {"grid.magnification": magnification[0], **({"further_mpp": further} if further else {})}
