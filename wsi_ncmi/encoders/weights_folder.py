"""The folder of encoder weights, and its manifest: origin, licence and SHA-256 of every file."""

import contextlib
import fcntl
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wsi_ncmi.core.errors import InputError, first_line
from wsi_ncmi.core.files import parse_json, sha256_file, write_json
from wsi_ncmi.encoders.config import FAMILIES, EncoderConfig, split_name
from wsi_ncmi.encoders.presets import find_preset, presets

WEIGHTS_VARIABLE = "WSI_NCMI_WEIGHTS"
"""Environment variable that names the folder of encoder weights."""

_MANIFEST = "manifest.json"
_SCHEMA = 1


@dataclass(frozen=True)
class ManifestEntry:
    """One weights file of a folder.

    Attributes:
        file: Its name in the folder.
        encoder: Key of the preset, or the full name of another encoder, that it belongs to.
        sha256: Of its bytes.
        n_bytes: Its size.
        source: Origin: ``hub:OWNER/NAME/FILE@REVISION`` or ``file:NAME``; never a path.
        source_sha256: Of the file it was made from.
        licence: Of the weights.
        date: Day it was imported, ISO 8601.
        parameters: Number of values it holds.
    """

    file: str
    encoder: str
    sha256: str
    n_bytes: int
    source: str
    source_sha256: str
    licence: str
    date: str
    parameters: int


def find_weights_folder(given: Path | None) -> Path | None:
    """The weights folder: the one given, else that of ``WSI_NCMI_WEIGHTS``, else None."""
    value = os.environ.get(WEIGHTS_VARIABLE)
    return given or (Path(value) if value else None)


def resolve_weights(encoder: EncoderConfig, weights_dir: Path | None) -> EncoderConfig:
    """Fills in the weights folder for an encoder that takes weights and was given none.

    ``weights_dir`` comes first, then the environment variable ``WSI_NCMI_WEIGHTS``; a folder without weights
    for this encoder is an error when it is loaded.
    """
    folder = find_weights_folder(weights_dir)
    family, _ = split_name(encoder.name)
    if encoder.weights is not None or folder is None or not FAMILIES[family].in_weights_folder:
        return encoder
    if not folder.is_dir():
        raise InputError(f"The weights folder {folder} does not exist; make it or set another.")
    return replace(encoder, weights=folder)


def read_manifest(folder: Path) -> tuple[ManifestEntry, ...]:
    """The entries of a weights folder, in the order they were made; empty without a manifest.

    Raises:
        InputError: The manifest can't be read or is not one of ours.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        return ()
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content.get("schema") != _SCHEMA:
            raise ValueError(f"its schema is {content.get('schema')!r}, not {_SCHEMA}")
        entries = TypeAdapter(tuple[ManifestEntry, ...]).validate_python(content["files"])
        if any(Path(entry.file).name != entry.file or entry.file in ("", ".", "..") for entry in entries):
            raise ValueError("a file of it lies outside the folder")
    except (OSError, ValueError, KeyError, AttributeError, ValidationError) as error:
        raise InputError(
            f"The manifest {path} can't be read ({first_line(error)}); move it away and import the weights "
            "again."
        ) from error
    return entries


def find_entry(folder: Path, encoder: str) -> ManifestEntry | None:
    """The entry of an encoder: by its full name, or by the part after the colon."""
    entries = {entry.encoder: entry for entry in read_manifest(folder)}
    if encoder in entries:
        return entries[encoder]
    by_model = [entry for name, entry in entries.items() if name.partition(":")[2] == encoder]
    return by_model[0] if len(by_model) == 1 else None


def record_entry(folder: Path, entry: ManifestEntry) -> None:
    """Writes an entry into the manifest, in place of an earlier one of the same encoder or file.

    Several processes may record at once: each sees what the others have written.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems can't lock a folder; there the window is the write of one small file.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        known = read_manifest(folder)
        others = [each for each in known if each.encoder != entry.encoder and each.file != entry.file]
        files = [asdict(each) for each in (*others, entry)]
        write_json(folder / _MANIFEST, {"schema": _SCHEMA, "files": files})
    finally:
        os.close(descriptor)


def check_listed_file(path: Path) -> None:
    """Refuses a file of its folder's manifest that no longer has the recorded bytes.

    Args:
        path: A weights file; without an entry for it there is nothing to check.

    Raises:
        InputError: Its size or SHA-256 differ.
    """
    for entry in read_manifest(path.parent):
        if entry.file == path.name and (problem := _problem(path, entry)):
            raise InputError(
                f"The weights file {path} was refused: {problem}; import or fetch {entry.encoder} again."
            )


def is_whole(folder: Path, entry: ManifestEntry) -> bool:
    """True if the file of an entry is there with the recorded bytes."""
    return not _problem(folder / entry.file, entry)


def verify_weights_folder(folder: Path) -> Sequence[tuple[ManifestEntry, str]]:
    """Checks every file of the manifest.

    Returns:
        Each entry with its problem, an empty text where the file is whole.

    Raises:
        InputError: There is no such folder or its manifest can't be read.
    """
    if not folder.is_dir():
        raise InputError(f"There is no weights folder {folder}; make it or name another.")
    return [(entry, _problem(folder / entry.file, entry)) for entry in read_manifest(folder)]


def _problem(path: Path, entry: ManifestEntry) -> str:
    if not path.is_file():
        return "it is missing"
    if path.stat().st_size != entry.n_bytes:
        return f"it has {path.stat().st_size} bytes, not the {entry.n_bytes} of the manifest"
    if sha256_file(path) != entry.sha256:
        return "its SHA-256 is not that of the manifest: it was changed or damaged"
    if entry.encoder.startswith("lazyslide:"):
        from wsi_ncmi.encoders.zoo import changed_file, read_listing

        return changed_file(path.with_suffix(""), read_listing(path))
    return ""


def list_presets(folder: Path | None) -> list[dict[str, Any]]:
    """Every preset in short, as JSON takes it, and how it stands.

    Args:
        folder: The weights folder; None where none is set.

    Returns:
        A row a preset; its ``state`` is ``here`` (in the folder's manifest), ``missing`` or ``no folder``,
        its ``unverified`` the number of facts that could not be checked without the weights.
    """
    held = {entry.encoder for entry in read_manifest(folder)} if folder else set()
    rows = []
    for preset in presets().values():
        state = "here" if preset.weights_key in held else "missing"
        rows.append({
            "key": preset.key,
            "title": preset.title,
            "state": state if folder else "no folder",
            "width": preset.embed_dim,
            "parameters": preset.parameters,
            "mpp": preset.mpp,
            "tile_px": preset.tile_px,
            "licence": preset.licence,
            "commercial": preset.commercial,
            "gated": preset.gated,
            "unverified": len(preset.unverified),
        })  # fmt: skip
    return rows


def describe_preset(key: str, folder: Path | None) -> dict[str, Any]:
    """Every fact of a preset, and its entry in the folder's manifest (``weights``; None without one).

    Raises:
        InputError: There is no such preset.
    """
    preset = find_preset(key)
    entry = find_entry(folder, preset.weights_key) if folder and folder.is_dir() else None
    facts = {"width" if name == "embed_dim" else name: value for name, value in asdict(preset).items()}
    return {**facts, "weights": asdict(entry) if entry else None}
