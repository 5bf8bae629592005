"""Identity of a run, and its resume checkpoint last.ckpt."""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsi_ncmi.cohorts import BagSource, Cohort, Fold
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import atomic_path
from wsi_ncmi.losses import loss_config
from wsi_ncmi.mil import model_config
from wsi_ncmi.training.config import RunConfig, TrainingConfig
from wsi_ncmi.training.warm_start import read_warm_start


def run_identity(source: BagSource, split: Fold, cohort: Cohort, config: RunConfig) -> dict[str, Any]:
    """Everything that decides the result of a run, JSON-ready; no path and nothing about pace is in it.

    The features enter by encoder, width, the tile count of every slide of the fold and the content of three
    training bags: enough to notice another extraction without reading a whole cohort.
    """
    lengths = dict(zip(source.slide_ids, np.asarray(source.lengths).tolist(), strict=True))
    parts: dict[str, list[list[str | int]]] = {}
    for part in ("train", "validation", "test"):
        rows = ((slide_id, cohort.by_slide.get(slide_id)) for slide_id in split.part(part))
        parts[part] = [
            [slide_id, row.label if row else "", lengths.get(slide_id, 0)] for slide_id, row in rows
        ]
    sample = hashlib.sha256()
    for position in {0, len(split.train) // 2, len(split.train) - 1}:
        sample.update(source.load(split.train[position]).tobytes())
    init = {} if config.init is None else {"init": read_warm_start(config.init).sha256}
    return {
        **config.identity(),
        **init,
        "classes": list(cohort.classes),
        "features": {"encoder": source.encoder, "width": source.width, "sample": sample.hexdigest()[:16]},
        "split": {part: identity_hash({"rows": rows})[:16] for part, rows in parts.items()},
    }


def identity_hash(identity: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a JSON-ready mapping; the order of its keys doesn't matter."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key in value:
            yield from _flatten(value[key], f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def as_written_now(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its model, losses and training as this version writes them.

    Version 0.1 wrote the settings of every loss and every model, whichever was chosen; and a record from
    before a setting existed has that setting's default.

    Args:
        record: Mapping in which ``model``, ``loss`` and the items of ``losses`` are names with settings, and
            ``training`` holds settings. One that this version can't read stays as it is.
    """
    now = dict(record)
    for key, read in (("model", model_config), ("loss", loss_config), ("losses", loss_config)):
        with contextlib.suppress(InputError, TypeError):
            if isinstance(now.get(key), Mapping):
                now[key] = asdict(read(**now[key]))
            elif isinstance(now.get(key), list):
                now[key] = [asdict(read(**item)) for item in now[key]]
    if isinstance(now.get("training"), Mapping):
        now["training"] = {**TrainingConfig().identity(), **now["training"]}
    return now


def first_difference(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Names the first key in which two identities differ, with both values.

    Args:
        there: Identity of the run on disk.
        wanted: Identity of the run that was asked for.

    Returns:
        For example ``training.epochs is 20 there and 40 now``; empty when the identities are equal.
    """
    old, new = dict(_flatten(as_written_now(there), "")), dict(_flatten(wanted, ""))
    for key in [*new, *(key for key in old if key not in new)]:
        left, right = old.get(key, "absent"), new.get(key, "absent")
        if key == "training.batch_size" and right == "auto":
            continue  # it stands for any number that a version may choose, and 0.1 wrote the number
        # JSON has one list type: a tuple here equals the list it was read back as.
        if json.dumps(left) != json.dumps(right):
            return f"{key} is {left} there and {right} now"
    return ""


LAST = "last.ckpt"
_SCHEMA = "wsi-ncmi-resume/2"


def write_resume(folder: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes ``last.ckpt`` atomically.

    Args:
        folder: The run's folder.
        identity: What makes the run (JSON-ready).
        state: Tensors, numbers, strings, and lists and dicts of them.
    """
    content = io.BytesIO()  # torch's own writing tells a full disk as an error of the archive's place
    torch.save({"schema": _SCHEMA, "identity": dict(identity), "state": dict(state)}, content)
    with atomic_path(folder / LAST) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_resume(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Reads ``last.ckpt`` without unpickling any code (``weights_only``).

    Returns:
        Identity and state, or ``None`` when there is no checkpoint.

    Raises:
        InputError: The file is no resume checkpoint of this version.
    """
    path = folder / LAST
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["schema"] != _SCHEMA:
            raise ValueError(f"schema {content['schema']!r}")
        return content["identity"], content["state"]
    except Exception as error:  # an unpickler on other bytes can fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} isn't a resume checkpoint that this version can read ({reason}); "
            "remove it to start the run again."
        ) from error
