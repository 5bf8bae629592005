"""Fetches the snapshot of an encoder of lazyslide-models into the weights folder, pinned to a commit."""

import datetime
import re
import shutil
import tempfile
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.extras import require
from wsi_ncmi.core.files import ensure_folder, sha256_file, write_json
from wsi_ncmi.encoders.hub import HubSource
from wsi_ncmi.encoders.weights_folder import ManifestEntry, find_entry, is_whole, record_entry
from wsi_ncmi.encoders.weights_import import Imported
from wsi_ncmi.encoders.zoo import Snapshot, ZooModel, changed_file, find_zoo_model, listing_name


def fetch_snapshot(
    key: str,
    folder: Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> Imported | None:
    """Downloads what an encoder of lazyslide-models reads, and builds it once to prove that it is all.

    Args:
        key: Key of lazyslide-models, of a tile or a slide encoder.
        folder: The weights folder.
        revision: Branch, tag or commit; the newest by default. The commit is what is recorded.
        trust_remote_code: The code of the repository may be run; ``revision`` must then be a commit.
        overwrite: Fetch again although a whole snapshot is there.

    Returns:
        The entry of the manifest and the listing; None where the snapshot was there already and is whole.

    Raises:
        InputError: The key is unknown or refused, it runs code that isn't trusted, access is missing, or the
            package can't build it.
        WsiNcmiError: The hub did not answer or gave other bytes than it states, or the disk is full.
    """
    require(("zoo",), f"lazyslide:{key}")
    model = find_zoo_model(key)
    entry = find_entry(folder, model.name) if folder.is_dir() else None
    if entry is not None and not overwrite and is_whole(folder, entry):
        return None
    hub = HubSource(
        model.name, model.repository, f"Ask for access at https://huggingface.co/{model.repository}.",
        "fetch it on another machine and copy its weights folder", revision=revision,
    )  # fmt: skip
    hub.check_allowed()
    commit, stated = hub.commit()
    names = sorted(name for name in stated if any(fnmatch(name, pattern) for pattern in model.patterns))
    _check_trust(model, hub, commit, names, trusted=trust_remote_code)
    with tempfile.TemporaryDirectory(dir=ensure_folder(folder), prefix=".fetch-") as scratch:
        files = Path(scratch) / "files"
        hub.download(names, commit, files)
        shutil.rmtree(files / ".cache", ignore_errors=True)  # the hub library's own notes
        snapshot = Snapshot(
            model.name, model.repository, commit, licence_of(model),
            {name: sha256_file(files / name) for name in names},
        )  # fmt: skip
        if problem := changed_file(files, Snapshot(**{**asdict(snapshot), "files": _known(stated, names)})):
            raise InputError(
                f"The hub gave other bytes than it states for {model.name}: {problem}; try again."
            )
        return _publish(model, snapshot, files, folder)


def _known(stated: dict[str, str], names: list[str]) -> dict[str, str]:
    return {name: stated[name] for name in names if stated[name]}


def _check_trust(model: ZooModel, hub: HubSource, commit: str, names: list[str], *, trusted: bool) -> None:
    if not model.code:
        return
    programs = [name for name in names if name.endswith((".py", ".pt2"))]
    named = re.fullmatch("[0-9a-f]{40}", hub.revision or "")
    if not trusted or not named:
        raise InputError(
            f"{model.name} runs the code of its repository ({', '.join(programs)}): read it at "
            f"{hub.where}/tree/{commit}, then say --trust-remote-code --revision {commit}."
        )


def licence_of(model: ZooModel) -> str:
    """Licence of an encoder's weights, as lazyslide-models states it."""
    import lazyslide_models

    card: Any = lazyslide_models.MODEL_REGISTRY[model.key]
    stated = card.license or "unknown"
    return " and ".join(stated) if isinstance(stated, list) else str(stated)


def describe_zoo(key: str, folder: Path | None) -> dict[str, Any]:
    """What is known of an encoder of lazyslide-models, and its entry in the folder's manifest.

    Raises:
        InputError: The key is unknown or refused, or the extra isn't installed.
    """
    require(("zoo",), f"lazyslide:{key}")
    model = find_zoo_model(key)
    entry = find_entry(folder, model.name) if folder and folder.is_dir() else None
    return {
        "encoder": model.name,
        "weights": asdict(entry) if entry else None,
        "hub": model.repository,
        "licence": licence_of(model),
        "takes": "features of tiles" if model.slide else "tiles",
        "runs code": model.code,
        "preset": model.preset or None,
    }


def _publish(model: ZooModel, snapshot: Snapshot, files: Path, folder: Path) -> Imported:
    from wsi_ncmi.encoders.zoo_models import build_zoo

    module = build_zoo(model, snapshot, files).module
    listing = folder / listing_name(model)
    final = listing.with_suffix("")
    if final.exists():
        shutil.rmtree(final)
    files.rename(final)
    write_json(listing, asdict(snapshot))
    digest = sha256_file(listing)
    entry = ManifestEntry(
        file=listing.name,
        encoder=model.name,
        sha256=digest,
        n_bytes=listing.stat().st_size,
        source=f"hub:{snapshot.repository}@{snapshot.revision}",
        source_sha256=digest,
        licence=snapshot.licence,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        parameters=sum(tensor.numel() for tensor in module.parameters()),
    )
    record_entry(folder, entry)
    notes = [f"Licence of {model.name}: {snapshot.licence}."]
    if model.preset:
        notes.append(
            f"The preset {model.preset} is the same network, checked here: --encoder {model.preset}."
        )
    return Imported(entry, listing, tuple(notes))
