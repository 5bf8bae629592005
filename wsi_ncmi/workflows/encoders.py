"""What the weights folder holds and how presets stand: list, show, fetch, import, verify."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.presets import Preset, find_preset, presets
from wsi_ncmi.encoders.registry import WEIGHTS_VARIABLE

if TYPE_CHECKING:
    from wsi_ncmi.encoders.importing import Imported

__all__ = [
    "PresetState",
    "describe_preset",
    "fetch_encoder",
    "import_encoder",
    "list_presets",
    "preset_table",
    "verify_encoders",
    "weights_folder",
]


@dataclass(frozen=True)
class PresetState:
    """How a preset stands.

    Attributes:
        key: Its name.
        title: Its name in print.
        state: ``here`` (in the folder's manifest), ``missing``, or ``no folder`` where none is set.
        width: Length of a feature vector.
        parameters: Number of parameters.
        mpp: Native resolution, µm per pixel.
        tile_px: Native tile edge.
        licence: Of the weights.
        commercial: Whether the licence permits commercial use by itself.
        gated: Whether access must be asked for.
        unverified: How many facts could not be checked without the weights.
    """

    key: str
    title: str
    state: Literal["here", "missing", "no folder"]
    width: int
    parameters: int
    mpp: tuple[float, ...]
    tile_px: int
    licence: str
    commercial: bool
    gated: bool
    unverified: int


def weights_folder(given: Path | None) -> Path | None:
    """The weights folder: the one given, else that of ``WSI_NCMI_WEIGHTS``, else None."""
    value = os.environ.get(WEIGHTS_VARIABLE)
    return given or (Path(value) if value else None)


def list_presets(folder: Path | None) -> tuple[PresetState, ...]:
    """Every preset and whether its weights are in the folder."""
    from wsi_ncmi.encoders.manifest import read_manifest

    held = {entry.encoder for entry in read_manifest(folder)} if folder else set()
    return tuple(_state(preset, folder, held) for preset in presets().values())


def _state(preset: Preset, folder: Path | None, held: set[str]) -> PresetState:
    state: Literal["here", "missing", "no folder"] = "here" if preset.weights_key in held else "missing"
    return PresetState(
        key=preset.key,
        title=preset.title,
        state=state if folder else "no folder",
        width=preset.embed_dim,
        parameters=preset.parameters,
        mpp=preset.mpp,
        tile_px=preset.tile_px,
        licence=preset.licence,
        commercial=preset.commercial,
        gated=preset.gated,
        unverified=len(preset.unverified),
    )


def describe_preset(key: str, folder: Path | None) -> dict[str, Any]:
    """Every fact of a preset, and its entry in the folder's manifest (``weights``; None without one).

    Raises:
        InputError: There is no such preset.
    """
    from wsi_ncmi.encoders.manifest import find_entry

    preset = find_preset(key)
    entry = find_entry(folder, preset.weights_key) if folder and folder.is_dir() else None
    facts = {"width" if name == "embed_dim" else name: value for name, value in asdict(preset).items()}
    return {**facts, "weights": entry.to_json() if entry else None}


def fetch_encoder(key: str, folder: Path | None, *, revision: str | None, overwrite: bool) -> Imported | None:
    """Fetches a preset's weights; see :func:`wsi_ncmi.encoders.hub.fetch_weights`."""
    from wsi_ncmi.encoders.hub import fetch_weights

    return fetch_weights(key, _needed(folder), revision=revision, overwrite=overwrite)


def import_encoder(file: Path, encoder: str, folder: Path | None, *, overwrite: bool) -> Imported:
    """Imports a weights file; see :func:`wsi_ncmi.encoders.importing.import_weights`."""
    from wsi_ncmi.encoders.importing import import_weights

    return import_weights(file, encoder, _needed(folder), overwrite=overwrite)


def verify_encoders(folder: Path | None) -> tuple[dict[str, Any], ...]:
    """Checks every file of the manifest: its name, encoder, whether it is whole, and the problem if not."""
    from wsi_ncmi.encoders.manifest import verify_weights_folder

    return tuple(
        {"file": entry.file, "encoder": entry.encoder, "ok": not problem, "problem": problem}
        for entry, problem in verify_weights_folder(_needed(folder))
    )


def preset_table() -> str:
    """The presets as a Markdown table, for the documentation."""
    head = "| key | encoder | width | parameters | µm/px | tile px | licence | gated | parameters equal to |"
    lines = [head, "|---|---|--:|--:|---|--:|---|---|---|"]
    for preset in presets().values():
        resolution = ", ".join(f"{mpp:g}" for mpp in preset.mpp)
        licence = preset.licence if preset.commercial else f"**{preset.licence}**"
        lines.append(
            f"| `{preset.key}` | {preset.title} | {preset.embed_dim} | {preset.parameters:,} | "
            f"{resolution} | {preset.tile_px} | {licence} | {'yes' if preset.gated else 'no'} | "
            f"{preset.published_by or '– (unverified)'} |"
        )
    return "\n".join(lines) + "\n"


def _needed(folder: Path | None) -> Path:
    if folder is None:
        raise InputError(f"No weights folder is named; set {WEIGHTS_VARIABLE} or give --weights-dir.")
    return folder
