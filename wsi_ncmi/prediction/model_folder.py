"""A folder of bundles whose link ``current`` names the one in use: promote, roll back, list.

``history.jsonl`` beside them keeps every change, so that rolling back is one command. The link is replaced by
a rename, which is atomic on local disks and NFS alike; ``load_model`` follows it once.
"""

import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import TEMPORARY_SUFFIX, parse_json, write_text
from wsi_ncmi.prediction.bundle import ModelBundle, is_bundle, load_bundle

CURRENT = "current"
HISTORY = "history.jsonl"
_PROMOTED, _ROLLED_BACK = "promoted", "rolled back"


def promote_bundle(path: Path) -> ModelBundle:
    """Makes a bundle the current one of its folder.

    Args:
        path: The bundle, in the folder of the others.

    Returns:
        The bundle, loaded and with it proved whole (and signed, where a key is configured).

    Raises:
        InputError: It can't be loaded or is a link, or the folder can't be written to.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link; give the bundle itself, which lies in the folder.")
    bundle = load_bundle(path)
    folder, before = path.parent, current_name(path.parent)
    if before == path.name:
        return bundle
    _point(folder, path.name)
    _note(folder, _PROMOTED, path.name, before, bundle)
    return bundle


def rollback(folder: Path) -> ModelBundle:
    """Makes the bundle current that was so before; again, the one before that.

    Raises:
        InputError: There is none, or it isn't any more what it was then.
    """
    current = current_name(folder)
    stack: list[dict[str, str]] = []
    for entry in _history(folder):
        if entry["what"] == _PROMOTED:
            stack.append(entry)
            continue
        while stack and stack[-1]["file"] != entry["file"]:
            stack.pop()
    # A link that was set by hand, or by what was killed before it noted it, is one more to go back from.
    if stack and stack[-1]["file"] == current:
        stack.pop()
    if not current or not stack:
        raise InputError(f"{folder} has no bundle that was current before; promote one instead.")
    target = stack[-1]
    bundle = load_bundle(folder / target["file"])
    if bundle.digest != target["digest"]:
        raise InputError(
            f"{folder / target['file']} isn't what was promoted on {target['utc']}: its digest is another. "
            "Promote a bundle by its name instead."
        )
    # Noted first: when this is killed here, the next rollback does the same.
    _note(folder, _ROLLED_BACK, target["file"], current, bundle)
    _point(folder, target["file"])
    return bundle


def list_bundles(folder: Path) -> Iterator[dict[str, Any]]:
    """Gives a row for each bundle of a folder, sorted by file.

    Yields:
        ``file, current, promoted`` (time of its last promotion), ``problem``, and ``name, version, digest,
        classes, cohort_sha256`` where it can be loaded.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the folder of the bundles.")
    current = current_name(folder)
    promoted = {entry["file"]: entry["utc"] for entry in _history(folder)}
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith(".") or not (path.suffix == ".zip" or path.is_dir()):
            continue
        if not is_bundle(path):
            continue
        row: dict[str, Any] = {
            "file": path.name,
            "current": path.name == current,
            "promoted": promoted.get(path.name, ""),
        }
        try:
            yield {**row, **_facts(load_bundle(path)), "problem": ""}
        except InputError as error:
            yield {**row, "problem": str(error)}


def current_name(folder: Path) -> str:
    """Name of the current bundle; empty where there is none.

    Raises:
        InputError: ``current`` is no link to a bundle of the folder.
    """
    link = folder / CURRENT
    if not os.path.lexists(link):
        return ""
    target = str(link.readlink()) if link.is_symlink() else "/"
    if "/" in target:
        raise InputError(f"{link} is no link to a bundle in {folder}; move it away.")
    return target


def _facts(bundle: ModelBundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "version": bundle.version,
        "digest": bundle.digest,
        "classes": list(bundle.classes),
        "cohort_sha256": bundle.cohort_sha256,
    }


def _point(folder: Path, name: str) -> None:
    temporary = folder / f".{CURRENT}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    try:
        temporary.symlink_to(name)
        os.replace(temporary, folder / CURRENT)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{folder / CURRENT} can't be set ({error.strerror}).") from error


def _history(folder: Path) -> list[dict[str, str]]:
    file = folder / HISTORY
    if not file.is_file():
        return []
    try:
        entries = [dict(parse_json(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        return [
            {key: str(entry[key]) for key in ("what", "file", "digest", "utc")} | entry for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} can't be read ({error}); mend it, or move it away to start anew."
        ) from error


def _note(folder: Path, what: str, name: str, before: str, bundle: ModelBundle) -> None:
    utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    facts = {key: value for key, value in _facts(bundle).items() if key != "classes"}
    entry = {"utc": utc, "what": what, "file": name, "before": before, **facts}
    lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in (*_history(folder), entry)]
    try:
        write_text(folder / HISTORY, "".join(lines))
    except OSError as error:
        raise InputError(f"{folder / HISTORY} can't be written ({error.strerror}).") from error
