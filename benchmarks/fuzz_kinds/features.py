"""Feature files: ours damaged, ours changed and sealed again, those of other tools damaged or changed."""

import io
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from fuzz_kinds.harness import Item, Result, damaged, is_unclear, judge_all, judged
from numpy.typing import NDArray

from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.features import SlideAttributes, identity_of, open_features_file, verify_file, write_features
from wsi_ncmi.features.checksum_trailer import TRAILER_BYTES, make_trailer
from wsi_ncmi.features.interchange.detection import open_feature_set
from wsi_ncmi.features.writer import content_sha256
from wsi_ncmi.slides import SlideRecord
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.tissue import TissueConfig
from wsi_ncmi.workflows.convert import ConvertConfig, convert

Bag = tuple[NDArray[Any], NDArray[Any]]
_WIDTH, _TILES = 6, 20
FORMATS = ("stamp", "trident", "clam", "packed")


def _write_native(folder: Path) -> None:
    folder.mkdir(parents=True)
    encoder = load_encoder(EncoderConfig()).info
    for number, slide_id in enumerate("abc"):
        record = SlideRecord(
            slide_id=slide_id, path=f"{slide_id}.svs", reader="openslide", vendor="aperio", width_px=4000,
            height_px=3000, n_levels=2, mpp_x=0.25, mpp_y=0.25, mpp_source="vendor",
            fingerprint=f"{number:02}" * 16, size_bytes=1,
        )  # fmt: skip
        attributes = SlideAttributes(
            slide_id=slide_id, width_px=4000, height_px=3000, reader="openslide", mpp_source="vendor",
            read_level=1, tile_size_level0=(512.0, 512.0),
        )  # fmt: skip
        rng = np.random.default_rng(number)
        tiles = np.arange(_TILES)
        write_features(
            folder / f"{slide_id}.h5", features=rng.normal(size=(_TILES, _WIDTH)),
            coords=np.stack((tiles % 7 * 512, tiles // 7 * 512), 1).astype(np.int64),
            tissue_fraction=np.ones(_TILES, np.float16), slide=attributes,
            identity=identity_of(record, TissueConfig(), GridConfig(mpp=0.5, tile_px=256), encoder),
        )  # fmt: skip


def _replace(
    name: str, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> Callable[[h5py.File, random.Random], None]:
    def changed(file: h5py.File, rng: random.Random) -> None:
        attrs = dict(file[name].attrs)
        values = change(file[name][()])
        del file[name]
        file[name] = values
        file[name].attrs.update(attrs)

    return changed


def _put(value: float, index: Any = (3, 1)) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def put(values: NDArray[Any]) -> NDArray[Any]:
        values[index] = value
        return values

    return put


def _attribute(value: Any = ..., name: str = "") -> Callable[[h5py.File, random.Random], None]:
    def changed(file: h5py.File, rng: random.Random) -> None:
        where = file if name or rng.random() < 0.7 else file["coords"]
        key = name or rng.choice(sorted(where.attrs))
        given = (
            rng.choice(("x", b"\xff\xfe", -1, 0, 1e308, float("nan"), "", [1, 2], "{"))
            if value is ...
            else value
        )
        del where.attrs[key]
        if given is not None:
            where.attrs[key] = given

    return changed


def _remove(name: str) -> Callable[[h5py.File, random.Random], None]:
    def changed(file: h5py.File, rng: random.Random) -> None:
        del file[name]

    return changed


# Name → change, and whether no use may accept it.
SEALED: dict[str, tuple[Callable[[h5py.File, random.Random], None], bool]] = {
    "NaN": (_replace("features", _put(np.nan)), True),
    "infinity": (_replace("features", _put(-np.inf)), True),
    "another number": (_replace("features", _put(0.5)), False),
    "one row fewer": (_replace("features", lambda values: values[1:]), True),
    "one column": (_replace("features", lambda values: values[:, 0]), True),
    "no columns": (_replace("features", lambda values: values[:, :0]), True),
    "integers": (_replace("features", lambda values: values.astype(np.int32)), True),
    "doubles beyond float16": (_replace("features", lambda values: values.astype(float) * 1e9), True),
    "texts": (_replace("features", lambda values: np.array([b"x"] * len(values))), True),
    "complex": (_replace("features", lambda values: values.astype(complex)), True),
    "negative corners": (_replace("coords", _put(-512)), True),
    "corners beyond": (_replace("coords", _put(10**15)), False),
    "corners as floats": (_replace("coords", lambda values: values + 0.5), True),
    "corners at their limit": (_replace("coords", _put(-(2**63))), True),
    "corners of 32 bits": (_replace("coords", lambda values: values.astype(np.uint32)), False),
    "a tile twice": (_replace("coords", lambda values: values[[0, *range(len(values) - 1)]]), False),
    "three coordinates": (_replace("coords", lambda values: np.hstack((values, values[:, :1]))), True),
    "no corners": (_remove("coords"), True),
    "no features": (_remove("features"), True),
    "no shares": (_remove("tissue_fraction"), False),
    "shares beyond 1": (_replace("tissue_fraction", lambda values: values * 7), False),
    "an attribute less": (_attribute(None), False),
    "an attribute of nonsense": (_attribute(), False),
    "another slide": (_attribute("../b", "slide_id"), False),
    "another count": (_attribute(10**9, "n_tiles"), True),
    "another size": (_attribute(float("nan"), "tile_size_level0_x"), False),
    "another resolution": (_attribute(-1.0, "mpp_target"), False),
}


_OF_TABLES = {
    **dict.fromkeys((
        "NaN", "infinity", "one row fewer", "one column", "no columns", "integers", "doubles beyond float16",
        "texts", "complex", "no features", "another number",
    ), "features"),
    **dict.fromkeys((
        "negative corners", "corners beyond", "corners as floats", "corners at their limit", "a tile twice",
        "three coordinates",
    ), "coords"),
}  # fmt: skip


def _sealed(content: bytes, change: Callable[[h5py.File, random.Random], None], rng: random.Random) -> bytes:
    image = io.BytesIO(content[:-TRAILER_BYTES])
    with h5py.File(image, "r+") as file:
        change(file, rng)
        if "features" in file and "coords" in file and file["features"].dtype.kind in "fiu":
            # As a program would that means it well.
            with np.errstate(all="ignore"):
                file.attrs["sha256"] = content_sha256(file["features"][()], file["coords"][()])
    return image.getvalue() + make_trailer(image.getbuffer())


def _judge_native(sound: Bag, damaged: bool, harmful: bool, path: Path) -> tuple[str, str]:
    check = verify_file(path)
    if not check.ok and is_unclear(check.problem):
        return "unclear", check.problem
    if check.ok and (damaged or harmful):
        return "silent", "verify finds nothing"

    def use() -> tuple[str, str]:
        source = open_bag_source(path.parent)
        bag, coords = source.load("a"), source.coordinates("a")
        file = open_features_file(path)
        _ = file.tissue_fraction, file.artifacts, file.identity
        other = open_feature_set(path.parent).bag("a")
        if not np.array_equal(other.features, bag) or not np.array_equal(other.coords, coords):
            return "silent", "conversion reads something else"
        if all(map(np.array_equal, (bag, coords), sound)):
            return "same", check.problem
        if not np.isfinite(bag).all() or (coords < 0).any() or len(coords) != len(bag) or not bag.shape[1]:
            return "silent", "impossible numbers are used"
        if damaged or harmful:
            return "silent", "it is used"
        return "other", check.problem

    outcome, detail = judged(use)
    return (outcome, detail) if outcome != "other" or check.ok else ("refused", check.problem)


def _judge_foreign(sound: Bag, path: Path) -> tuple[str, str]:
    folder = next((each for each in path.parents if each.name == "x"), path)
    source = open_bag_source(folder)
    bag, coords = source.load("a"), source.coordinates("a")
    if not np.isfinite(bag).all() or (coords is not None and ((coords < 0).any() or len(coords) != len(bag))):
        return "silent", "impossible numbers are used"
    if coords is None and sound[1] is not None:
        return "silent", "its places are gone"
    if np.array_equal(bag, sound[0]) and (coords is None or np.array_equal(coords, sound[1])):
        return "same", ""
    with np.errstate(over="ignore"):
        told = _reference(path).astype(np.float16)
    if np.array_equal(told.reshape(bag.shape), bag):
        return "other", ""
    return "silent", "the reference reads other numbers"


def _reference(path: Path) -> NDArray[Any]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as packed:
            return packed["features"][: int(packed["lengths"][0])]
    if path.suffix == ".pt":
        return np.asarray(torch.load(path, weights_only=True))
    with h5py.File(path) as file:
        name = "feats" if "feats" in file else "features"
        return np.asarray(file[name][()])


def inputs(count: int, seed: int, work: Path, data: Path | None) -> Iterator[Result]:
    """Feature files: ours damaged, ours changed and sealed, those of other tools damaged or changed."""
    native = work / "native"
    _write_native(native)
    source = open_bag_source(native)
    bag = source.load("a"), source.coordinates("a")
    content = (native / "a.h5").read_bytes()
    items: list[Item] = []
    for number in range(count * 3 // 10):
        changed, what = damaged(content, random.Random(f"{seed} native {number}"))
        judge = partial(_judge_native, bag, changed != content, False)
        items.append(("ours, damaged", f"{number} {what}", changed, "a.h5", judge))
    for number in range(count * 3 // 10):
        what = list(SEALED)[number % len(SEALED)]
        change, harmful = SEALED[what]
        changed = _sealed(content, change, random.Random(f"{seed} sealed {number}"))
        judge = partial(_judge_native, bag, False, harmful)
        items.append(("ours, sealed again", f"{number} {what}", changed, "a.h5", judge))
    yield from judge_all(items, native, work)
    left = count - len(items)
    for place, kind in enumerate(FORMATS):
        out = work / kind if kind != "packed" else work / "bags.npz"
        convert(ConvertConfig(features=native, to=kind, out=out))
        source = open_bag_source(out)
        judge = partial(_judge_foreign, (source.load("a"), source.coordinates("a")))
        files = [out] if out.is_file() else sorted(p for p in out.rglob("a.*") if p.suffix in (".h5", ".pt"))
        items = []
        for number in range(left * (place + 1) // len(FORMATS) - left * place // len(FORMATS)):
            rng = random.Random(f"{seed} {kind} {number}")
            path = rng.choice(files)
            changed, what = damaged(path.read_bytes(), rng)
            if path.suffix == ".h5" and rng.random() < 0.5:
                changed, what = _changed_foreign(path.read_bytes(), rng)
            name = path.relative_to(out).as_posix() if out.is_dir() else ""
            items.append((kind, f"{number} {path.suffix} {what}", changed, name, judge))
        yield from judge_all(items, out, work)


def _changed_foreign(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A file of another tool with a table that is nonsense."""
    image = io.BytesIO(content)
    with h5py.File(image, "r+") as file:
        name = "feats" if "feats" in file else "features"
        tables = [table for table in ("features", "coords") if table in file or name in file]
        what = rng.choice([what for what in SEALED if what in _OF_TABLES and _OF_TABLES[what] in tables])
        if name != "features":
            file.move(name, "features")
        SEALED[what][0](file, rng)
        if name != "features" and "features" in file:
            file.move("features", name)
    return image.getvalue(), what
