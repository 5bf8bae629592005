"""Takes a weights file into the weights folder: checked against the network, as safetensors, recorded."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path, ensure_folder, path_safe, sha256_file
from wsi_ncmi.encoders.architectures import build_architecture, to_our_names
from wsi_ncmi.encoders.manifest import ManifestEntry, find_entry, record_entry
from wsi_ncmi.encoders.presets import Preset, find_preset, presets
from wsi_ncmi.encoders.weights import check_fit, load_state

__all__ = ["Imported", "import_weights", "recognised"]


@dataclass(frozen=True)
class Imported:
    """What an import left.

    Attributes:
        entry: The new entry of the manifest.
        path: The file in the folder.
        notes: Sentences worth telling, for example whether the file is the published one.
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

    def named(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.preset is None:
            return state
        return to_our_names(self.preset.architecture.names, state, self.network)


def import_weights(
    file: Path, encoder: str, folder: Path, *, source: str | None = None, overwrite: bool = False
) -> Imported:
    """Checks a weights file against an encoder and puts its tensors into the weights folder.

    Nothing in the file is executed. Every tensor that the network needs must be there with its name and
    shape, and nothing else but what the preset says it leaves over. The copy holds what the network needs,
    under the network's own names, in the file's own number types, as safetensors.

    Args:
        file: Safetensors, or a file of ``torch.save`` that holds tensors only.
        encoder: Key of a preset, or ``timm:NAME`` or ``torchvision:NAME``.
        folder: The weights folder; made where it is not there.
        source: Where the file came from; by default ``file:`` and its name.
        overwrite: Replace other weights of the same encoder.

    Returns:
        The entry, the file and what is worth telling.

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
    state = target.named(load_state(file))
    check_fit(target.network, state, head=target.head, path=file, name=target.name)
    kept = {key: _own(state[key]) for key in target.network.state_dict() if key in state}
    final = ensure_folder(folder) / f"{path_safe(target.name)}.safetensors"
    entry = _write(kept, final, target, source or f"file:{file.name}", origin)
    record_entry(folder, entry)
    return Imported(entry, final, tuple(_notes(target.preset, origin, entry.source)))


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
    """Whether a file's SHA-256 is one that is published for the preset (whole, or its first digits)."""
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
