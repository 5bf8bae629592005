"""``wsi-ncmi extract``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, Settings, run_verb
from wsi_ncmi.core.errors import InputError

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "extract"


def command(
    slides: Annotated[Path, typer.Argument(help="Folder of slides, or one slide.")],
    out: Annotated[Path, typer.Option("--out", help="Output folder.")],
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            help="descriptor, a preset (encoders list), torchvision:, timm:, torchscript:, onnx:, file:NAME.",
        ),
    ] = "descriptor",
    weights: Annotated[Path | None, typer.Option(help="Weights file, or a folder that holds it.")] = None,
    mpp: Annotated[
        list[float] | None,
        typer.Option(help="Target µm per pixel (0.5); given again, a further set of features each."),
    ] = None,
    magnification: Annotated[
        list[float] | None, typer.Option(help="Another way to give --mpp: 10 / magnification.")
    ] = None,
    tile_px: Annotated[int | None, typer.Option(help="Tile edge in pixels (256).")] = None,
    overlap_px: Annotated[int | None, typer.Option(help="Overlap of neighbours in pixels (0).")] = None,
    min_tissue: Annotated[float | None, typer.Option(help="Least tissue share of a tile (0.25).")] = None,
    artifacts: Annotated[
        str | None, typer.Option(help="keep or drop tiles with pen, folds, borders or blur (keep).")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="QuPath GeoJSON or ASAP XML, a file a slide, that change the tissue."
        ),
    ] = None,
    stain: Annotated[
        str | None, typer.Option(help="Stain normalisation: none, macenko or reinhard (none).")
    ] = None,
    stain_reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Image whose colours are the target of --stain.")
    ] = None,
    only: Annotated[Path | None, typer.Option("--list", help="CSV with slide_id: only these slides.")] = None,
    inventory: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Table of wsi-ncmi inventory: no slide is looked at anew."),
    ] = None,
    mpp_table: Annotated[Path | None, typer.Option(help="CSV with slide_id,mpp.")] = None,
    default_mpp: Annotated[
        float | None, typer.Option(help="µm per pixel where nothing else gives it.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes (as the machine allows).")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Tiles of one forward pass (auto).")] = None,
    backend: Annotated[
        str | None, typer.Option(help="What computes a network: auto, torch, compile, onnx or openvino.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    engine: Annotated[str | None, typer.Option(help="local processes, or a ray cluster (local).")] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Ray cluster (RAY_ADDRESS, or this machine's).")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="The I-th of N parts, for job arrays.")
    ] = None,
    timeout_per_slide: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds a slide may take.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace features of another identity.")
    ] = False,
    allow_upsample: Annotated[
        bool, typer.Option("--allow-upsample", help="Accept slides coarser than --mpp.")
    ] = False,
    scaled_decoding: Annotated[
        bool, typer.Option("--scaled-decoding", help="Let the JPEG decoder reduce tiles: faster, not exact.")
    ] = False,
    setting: Settings = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Find tissue, cut tiles and embed them; what is done already is skipped.

    Example: wsi-ncmi extract slides/ --out out --encoder descriptor --mpp 0.5 --tile-px 256
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows import extract, load_config

        resolution, further = _resolutions(mpp or (), magnification or ())
        grid = {"tile_px": tile_px, "overlap_px": overlap_px, "min_tissue": min_tissue, **resolution}
        flags = {"allow_upsample": allow_upsample or None, "scaled_decoding": scaled_decoding or None}
        config = load_config(
            None,
            setting or (),
            {
                "slides": slides, "out": out, "only": only, "shard": shard, "inventory": inventory,
                "overwrite": overwrite or None,
                "grid": {**grid, **flags},
                "further_mpp": further,
                "artifacts": {"rule": artifacts},
                "annotations": annotations,
                "stain": {"method": stain, "reference": stain_reference},
                "encoder": {
                    "name": encoder, "weights": weights, "batch_size": batch_size, "device": device,
                    "precision": precision, "backend": backend,
                },
                "extraction": {
                    "workers": workers, "timeout_per_slide": timeout_per_slide, "engine": engine,
                    "ray_address": ray_address,
                },
                "mpp_table": mpp_table,
                "default_mpp": default_mpp,
            },
        )  # fmt: skip
        return extract(config, progress)

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)


def _resolutions(
    mpp: Sequence[float], magnification: Sequence[float]
) -> tuple[dict[str, float], list[float] | None]:
    """The main resolution as a key of the grid, and the further ones in µm per pixel."""
    from wsi_ncmi.tiling.config import OBJECTIVE_UM

    if mpp and magnification:
        raise InputError("--mpp and --magnification both give the resolution; use one of them.")
    for value in magnification:
        if not value > 0:
            raise InputError(f"--magnification takes a positive number such as 20, got {value:g}.")
    if magnification:
        return {"magnification": magnification[0]}, [
            OBJECTIVE_UM / value for value in magnification[1:]
        ] or None
    return ({"mpp": mpp[0]}, list(mpp[1:]) or None) if mpp else ({}, None)
