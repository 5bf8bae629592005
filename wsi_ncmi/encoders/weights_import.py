"""Imports weights, from a file or the Hugging Face hub, checked against the network they are for."""

import datetime
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, ensure_folder, path_safe, sha256_file
from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.hub import HubSource
from wsi_ncmi.encoders.presets import Preset, find_preset, presets
from wsi_ncmi.encoders.weights_choice import choose_preset_weights, choose_weights
from wsi_ncmi.encoders.weights_folder import ManifestEntry, find_entry, is_whole, record_entry


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Attributes:
        entry: The new entry of the manifest.
        path: The file in the folder.
        notes: Sentences for the user, for example that the file is the published one.
    """

    entry: ManifestEntry
    path: Path
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Target:
    name: str
    network: nn.Module
    head: tuple[str, ...]
    preset: Preset | None

    def choose(self, file: Path) -> tuple[dict[str, Tensor], str]:
        if self.preset is None:
            return choose_weights(file, self.network, head=self.head, name=self.name)
        return choose_preset_weights(file, self.network, self.preset)


def import_weights(
    file: Path, encoder: str, folder: Path, *, source: str | None = None, overwrite: bool = False
) -> Imported:
    """Checks a weights file against an encoder and puts its tensors into the weights folder.

    Nothing in the file is executed. Every tensor that the network needs must be there with its name and
    shape, under one prefix and in one dictionary of the file (:func:`choose_weights`). The copy holds what
    the network needs, under the network's own names, in the file's own number types, as safetensors.

    Args:
        file: Safetensors, or a file of ``torch.save`` that holds tensors only.
        encoder: Key of a preset, or ``timm:NAME`` or ``torchvision:NAME``.
        folder: The weights folder; made where it is not there.
        source: Origin of the file; by default ``file:`` and its name.
        overwrite: Replace other weights of the same encoder.

    Returns:
        The entry, the file and notes for the user.

    Raises:
        InputError: Unknown encoder, a file that does not fit or is unsafe, or other weights are there.
    """
    if not file.is_file():
        raise InputError(f"There is no weights file {file}; name one that exists.")
    target = _target(encoder)
    origin = sha256_file(file)
    earlier = find_entry(folder, target.name) if folder.is_dir() else None
    if earlier is not None and earlier.source_sha256 != origin and not overwrite:
        raise InputError(
            f"The weights folder {folder} holds other weights for {target.name} ({earlier.source}); say "
            "--overwrite to replace them."
        )
    state, choice = target.choose(file)
    kept = {key: _own(tensor) for key, tensor in state.items()}
    final = ensure_folder(folder) / f"{path_safe(target.name)}.safetensors"
    entry = _write(kept, final, target, source or f"file:{file.name}", origin)
    record_entry(folder, entry)
    return Imported(
        entry, final, (*_notes(target.preset, origin, entry.source), *([choice] if choice else []))
    )


def _target(encoder: str) -> _Target:
    if ":" not in encoder:
        preset = presets()[find_preset(encoder).weights_key]
        left_over = preset.architecture.left_over
        return _Target(preset.key, build_architecture(preset.architecture), left_over, preset)
    family, _, model = encoder.partition(":")
    if family == "timm":
        from wsi_ncmi.encoders.timm_models import headless_timm as build
    elif family == "torchvision":
        from wsi_ncmi.encoders.torchvision_models import headless_torchvision as build
    else:
        raise InputError(
            f"Weights can be imported for a preset, timm:NAME or torchvision:NAME, not for {encoder!r}."
        )
    from wsi_ncmi.encoders.registry import check_known

    check_known(encoder)
    headless = build(model)
    return _Target(encoder, headless.model, headless.head, None)


def _own(tensor: Tensor) -> Tensor:
    """The tensor on memory of its own, as safetensors wants it; copied only where it shares its memory."""
    tensor = tensor.contiguous()
    shared = tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
    return tensor.clone() if shared else tensor


def _write(
    tensors: dict[str, Tensor], final: Path, target: _Target, source: str, origin: str
) -> ManifestEntry:
    from safetensors.torch import save_file

    with atomic_path(final) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # the user's own choice of who may read; safetensors makes it private
        # One entry: safetensors writes several in any order, and the same import must give the same bytes.
        save_file(tensors, temporary, metadata={"source_sha256": origin})
        temporary.chmod(mode)
        digest, size = sha256_file(temporary), temporary.stat().st_size
    return ManifestEntry(
        file=final.name,
        encoder=target.name,
        sha256=digest,
        n_bytes=size,
        source=source,
        source_sha256=origin,
        licence=target.preset.licence if target.preset else "unknown",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
    )


def recognised(preset: Preset, digest: str) -> bool:
    """True if a file's SHA-256 is one that is published for the preset (whole, or its first digits)."""
    return any(digest.startswith(known) for known in preset.sha256)


def _notes(preset: Preset | None, origin: str, source: str) -> Sequence[str]:
    if preset is None:
        return ()
    notes = [f"Licence of {preset.title}: {preset.licence}."]
    if preset.sha256 and source.startswith("file:"):  # a hub's file says itself where it is from
        notes.append(
            "The file is the published one, by its SHA-256."
            if recognised(preset, origin)
            else f"The file fits, but is none of those whose SHA-256 is published for {preset.key}."
        )
    return notes


def fetch_weights(
    key: str, folder: Path, *, revision: str | None = None, overwrite: bool = False
) -> Imported | None:
    """Downloads a preset's weights from the hub (:class:`HubSource`) and imports them.

    Args:
        key: The preset.
        folder: The weights folder.
        revision: Branch, tag or commit; the newest by default.
        overwrite: Fetch again although weights are there and whole.

    Returns:
        The import, or None where the weights were there already and are whole.

    Raises:
        InputError: The preset has no published file, access is missing, or downloads are forbidden.
        WsiNcmiError: The hub did not answer, or the disk is full.
    """
    preset = presets()[find_preset(key).weights_key]
    entry = find_entry(folder, preset.key) if folder.is_dir() else None
    if entry is not None and not overwrite and is_whole(folder, entry):
        return None
    if preset.hub is None:
        raise InputError(f"The weights of {preset.key} can't be fetched: {preset.access}")
    hub = HubSource(
        preset.key, preset.hub.repository, preset.access,
        f"download them on another machine and use wsi-ncmi encoders import FILE --as {preset.key}",
        preset.hub.kind, revision,
    )  # fmt: skip
    hub.check_allowed()
    # On the folder's own disk: a large download must not fill a small temporary one.
    with tempfile.TemporaryDirectory(dir=ensure_folder(folder), prefix=".fetch-") as scratch:
        file, commit, name = hub.first_of(preset.hub.files, Path(scratch))
        source = f"hub:{hub.repository}/{name}@{commit}"
        return import_weights(
            file, preset.key, folder, source=source, overwrite=overwrite or entry is not None
        )
