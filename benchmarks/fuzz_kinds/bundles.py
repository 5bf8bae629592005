"""Zipped model bundles: damaged, of damaged members, and changed and sealed again."""

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_kinds.harness import Item, Result, damaged, judge_all, nonsense_in_json
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from wsi_ncmi.losses import build_loss, loss_config
from wsi_ncmi.mil import build_model, model_config
from wsi_ncmi.prediction import ExportConfig, ModelBundle, load_ensemble, load_model
from wsi_ncmi.prediction.bundle import bundle_files
from wsi_ncmi.prediction.calibration import Calibration
from wsi_ncmi.prediction.ood import SlideProperties
from wsi_ncmi.prediction.ood_fitting import fit_ood_detector, sample_slide
from wsi_ncmi.training import write_bundle
from wsi_ncmi.training.bundle_io import SUMS, read_files, sums_of
from wsi_ncmi.training.checkpoint import write_trained

_WIDTH = 6


def make_bundle(work: Path) -> Path:
    """Writes a small bundle of two members."""
    run = work / "run"
    classes, counts = ("a", "b"), (5, 5)
    told = {"encoder": "descriptor", "mpp_target": 0.5, "tile_px": 256, "overlap_px": 0, "stain": "none"}
    told |= {"encoder_weights_sha256": "none", "transform": "t", "precision": "fp32"}
    for fold in range(2):
        folder = run / f"fold_{fold}" / "seed_0"
        folder.mkdir(parents=True)
        torch.manual_seed(fold)
        options, loss = model_config(hidden=8, attention=4), loss_config(name="ncmi")
        aggregator = build_model(options, _WIDTH)
        criterion = build_loss(loss, 2, aggregator.embedding_width, counts)
        write_trained(
            folder, aggregator, criterion, classes=classes, model=options, loss=loss, class_counts=counts,
            extra={"encoder": told},
        )  # fmt: skip
    rng = np.random.default_rng(0)
    properties = SlideProperties(0.25, {"density": 0.8, "cx": -0.2, "cy": 0.4})
    samples = [
        sample_slide(f"p{i // 2}", rng.normal(size=(60, _WIDTH)).astype(np.float16), properties)
        for i in range(24)
    ]  # fmt: skip
    card = ExportConfig(run=run, out=work)
    bundle = ModelBundle(
        load_ensemble(run), Calibration(2.0, 0.6, "2 folds", 30), fit_ood_detector(samples),
        {}, card.intended_use, card.limits,
    )  # fmt: skip
    members = {
        f"fold_{i}-seed_0": tuple(
            (run / f"fold_{i}" / "seed_0" / name).read_bytes() for name in ("model.json", "model.safetensors")
        )
        for i in range(2)
    }  # fmt: skip
    write_bundle(work / "bundle", bundle_files(bundle, members, card="# Card"))
    return work / "bundle"


def _zipped(files: Mapping[str, bytes]) -> bytes:
    image = io.BytesIO()
    with zipfile.ZipFile(image, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return image.getvalue()


def _judge_bundle(tiles: NDArray[Any], expected: NDArray[Any], sealed: bool, path: Path) -> tuple[str, str]:
    bundle = load_model(path)
    output = bundle.predict(tiles)
    calibration = bundle.calibration
    _ = bundle.digest, calibration.basis, calibration.threshold, calibration.shown(0.9, "a"), bundle.name
    p = output.probabilities
    if np.array_equal(p, expected) and bundle.classes == ("a", "b"):
        return "same", ""
    if not sealed:
        return "silent", f"{p}"
    distinct = len(set(bundle.classes)) == len(p)
    sound = np.isfinite(p).all() and abs(p.sum() - 1) < 1e-6 and 0 < calibration.temperature < np.inf
    return ("other" if sound and distinct else "silent"), f"{p} {bundle.classes} {calibration.temperature}"


def inputs(count: int, seed: int, work: Path, data: Path | None) -> Iterator[Result]:
    """Zipped bundles: damaged, of damaged members, and sealed again."""
    files = read_files(make_bundle(work))
    tiles = np.random.default_rng(1).normal(size=(30, _WIDTH)).astype(np.float16)
    expected = load_model(work / "bundle").predict(tiles).probabilities
    sound = _zipped(files)
    items: list[Item] = []
    for number in range(count):
        rng = random.Random(f"{seed} bundle {number}")
        changed = dict(files)
        name = rng.choice(sorted(changed))
        group = ("damaged", "member damaged", "sealed again", "sealed again")[number % 4]
        if group == "damaged":
            content, what = damaged(sound, rng)
        elif group == "member damaged":
            changed[name], what = damaged(changed[name], rng)
            content = _zipped(changed)
        else:
            name = rng.choice([name for name in sorted(changed) if name not in (SUMS, "MODEL_CARD.md")])
            changed[name], what = _sealed_member(name, changed, rng)
            del changed[SUMS]
            content = _zipped({**changed, SUMS: sums_of(changed)})
        judge = partial(_judge_bundle, tiles, expected, group == "sealed again")
        items.append((group, f"{number} {name} {what}", content, "", judge))
    yield from judge_all(items, work / "bundle.zip", work)


def _sealed_member(name: str, files: dict[str, bytes], rng: random.Random) -> tuple[bytes, str]:
    if name.endswith(".json"):
        return nonsense_in_json(files[name], rng)
    tensors = load_tensors(files[name])
    key = rng.choice(sorted(tensors))
    way = rng.choice(("NaN", "missing", "double", "integers", "wider", "huge", "damaged", "flat"))
    values = tensors[key].clone()
    if way == "NaN":
        values.view(-1)[0] = torch.nan if values.is_floating_point() else 0
    tensors[key] = {
        "double": values.double(), "integers": values.int(), "wider": torch.cat((values.view(-1),) * 2),
        "huge": values * 1e30, "flat": values.reshape(-1),
    }.get(way, values)  # fmt: skip
    if way == "missing":
        del tensors[key]
    content = damaged(files[name], rng)[0] if way == "damaged" else save_tensors(tensors)
    description = name.replace(".safetensors", ".json")
    if description in files:
        told = json.loads(files[description])
        told["weights_sha256"] = hashlib.sha256(content).hexdigest()
        files[description] = json.dumps(told).encode()
    return content, f"{key} {way}"
