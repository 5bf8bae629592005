"""Fetches published weights from the Hugging Face hub: the only place where an encoder meets a network."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.core.files import ensure_folder
from wsi_ncmi.encoders.importing import Imported, import_weights
from wsi_ncmi.encoders.manifest import find_entry, is_whole
from wsi_ncmi.encoders.presets import Hub, Preset, find_preset, presets

__all__ = ["fetch_weights"]

_ENDPOINT = "https://huggingface.co"


def fetch_weights(
    key: str, folder: Path, *, revision: str | None = None, overwrite: bool = False
) -> Imported | None:
    """Downloads a preset's weights and imports them into the weights folder.

    The token is the one that ``huggingface_hub`` finds (``HF_TOKEN`` or a login); it is never shown.
    ``HF_ENDPOINT`` names another hub, ``HF_HUB_OFFLINE`` forbids the download.

    Args:
        key: The preset.
        folder: The weights folder.
        revision: Branch, tag or commit; the newest by default.
        overwrite: Fetch again although weights are there and whole.

    Returns:
        What was imported, or None where the weights were there already and are whole.

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
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise InputError(
            f"HF_HUB_OFFLINE is set, so the weights of {preset.key} can't be fetched; unset it, or download "
            f"them on another machine and use wsi-ncmi encoders import FILE --as {preset.key}."
        )
    # On the folder's own disk: a large download must not fill a small temporary one.
    with tempfile.TemporaryDirectory(dir=ensure_folder(folder), prefix=".fetch-") as scratch:
        file, commit, name = _download(preset, preset.hub, revision, Path(scratch))
        source = f"hub:{preset.hub.repository}/{name}@{commit}"
        return import_weights(
            file, preset.key, folder, source=source, overwrite=overwrite or entry is not None
        )


def _download(preset: Preset, hub: Hub, revision: str | None, scratch: Path) -> tuple[Path, str, str]:
    """The first of the hub's files that is there: path, commit, name."""
    import huggingface_hub
    from huggingface_hub import errors

    endpoint = os.environ.get("HF_ENDPOINT") or _ENDPOINT
    where = f"{endpoint}/{'datasets/' if hub.kind == 'dataset' else ''}{hub.repository}"
    try:
        for name in hub.files:
            try:
                common: dict[str, Any] = {"repo_type": hub.kind, "revision": revision, "endpoint": endpoint}
                path = huggingface_hub.hf_hub_download(hub.repository, name, local_dir=scratch, **common)
            except errors.EntryNotFoundError as error:
                if isinstance(error, errors.LocalEntryNotFoundError):
                    raise
                continue
            metadata = huggingface_hub.get_hf_file_metadata(
                huggingface_hub.hf_hub_url(hub.repository, name, **common)
            )
            return Path(path), metadata.commit_hash or "unknown", name
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        # Without a token the hub answers a private or gated repository with 401, as if it were not there.
        raise InputError(
            f"The hub refused {preset.key} ({where}): access to it must be granted to your token first. "
            f"{preset.access}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{where} has no revision {revision!r}; leave --revision out.") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise InputError(
                f"The hub refused {preset.key} ({where}, status {status}). {preset.access}"
            ) from error
        answer = f"status {status}" if status else "no answer"
        raise WsiNcmiError(
            f"The hub gave no weights of {preset.key} ({where}, {answer}); "
            "try again, or download the file elsewhere and use wsi-ncmi encoders import."
        ) from error
    except OSError as error:
        raise WsiNcmiError(
            f"The weights of {preset.key} can't be downloaded ({error.strerror or type(error).__name__}); "
            "free space or try again."
        ) from error
    raise InputError(
        f"{where} has none of the files {', '.join(hub.files)}; download the weights by hand and use "
        f"wsi-ncmi encoders import FILE --as {preset.key}."
    )
