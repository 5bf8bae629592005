"""Files of others that are broken, odd or hostile; and output that is there already."""

from __future__ import annotations

import os
import pickle

import h5py
import numpy as np
import pytest
import torch

from tests.features.interchange import makers
from wsi_ncmi.core.errors import InputError, JobStoppedError
from wsi_ncmi.extraction.ledger import read_ledger
from wsi_ncmi.features import open_features_file, verify_folder
from wsi_ncmi.features.interchange import (
    ExternalFileError,
    TileBag,
    TileMetadata,
    open_feature_set,
    to_half,
    writer_for,
)
from wsi_ncmi.workflows.convert import ConvertConfig, convert


def h5(path, **tables):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as handle:
        for name, values in tables.items():
            handle[name] = values
    return path


GOOD = np.ones((3, 4), np.float32)
GOOD_TENSOR = torch.ones(3, 4)
PLACES = np.array([[0, 0], [512, 0], [0, 512]])


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"features": GOOD[0], "coords": PLACES}, r"shape \(4,\), not \(tiles, dimensions\)"),
        ({"features": np.stack([GOOD, GOOD]), "coords": PLACES}, r"shape \(2, 3, 4\)"),
        ({"features": GOOD[:, :0], "coords": PLACES}, r"shape \(3, 0\)"),
        ({"features": GOOD.astype(int), "coords": PLACES}, "holds int64, not floating-point"),
        ({"features": GOOD * np.nan, "coords": PLACES}, "holds NaN or infinity"),
        ({"features": GOOD * np.inf, "coords": PLACES}, "holds NaN or infinity"),
        ({"features": GOOD * 1e6, "coords": PLACES}, r"a number of 1e\+06, beyond the 65504"),
        ({"features": GOOD * 1e-9, "coords": PLACES}, "so small .* that float16 would lose 100%"),
        ({"features": GOOD, "coords": PLACES[:2]}, r"'coords' is \(2, 2\), not \(3, 2\)"),
        ({"features": GOOD, "coords": PLACES[:, :1]}, r"'coords' is \(3, 1\)"),
        ({"features": GOOD, "coords": PLACES * np.nan}, "not finite"),
        ({"features": GOOD, "coords": PLACES + 0.4}, "no whole pixels"),
        ({"features": GOOD, "coords": PLACES - 512}, "outside of the slide"),
        ({"features": GOOD}, "the source has no coordinates"),
        (
            {"features": np.arange(12.0).reshape(3, 4), "coords": PLACES * 0},
            r"two different tiles lie at \(0, 0\)",
        ),
    ],
)
def test_a_faulty_slide_fails_alone(tmp_path, tables, message):
    folder, out = tmp_path / "clam", tmp_path / "out"
    makers.clam(folder, "good", pt=False)
    # The width of the faulty one is not its fault here.
    h5(folder / "h5_files" / "bad.h5", **tables)
    with h5py.File(folder / "h5_files" / "good.h5", "w") as handle:
        handle["features"], handle["coords"] = GOOD, PLACES
    result = convert(ConvertConfig(features=folder, to="wsi-ncmi", out=out))
    assert result.exit_code == 1
    assert len(result.failures) == 1
    assert result.failures[0].startswith("bad: ")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(result.failures[0])
    rows = {row.slide_id: row.status for row in read_ledger(out / "conversion.csv")}
    assert rows == {"bad": "failed", "good": "done"}
    assert [verdict.ok for verdict in verify_folder(out)] == [True]
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("keep", [0, 8, 100, 700, -1])
def test_half_written_hdf5(tmp_path, keep):
    makers.clam(tmp_path, "s", pt=False)
    path = tmp_path / "h5_files" / "s.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ExternalFileError, match="truncated, half-written or no HDF5"):
        open_feature_set(tmp_path).bag("s")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"features": torch.ones(3, 4)}, "holds a dict, not a tensor"),
        (torch.ones(3), r"tensor of shape \(3,\)"),
        (torch.ones(3, 4, dtype=torch.int64), "holds torch.int64"),
        (torch.ones(3, 0), r"tensor of shape \(3, 0\)"),
    ],
)
def test_odd_tensors(tmp_path, value, message):
    (tmp_path / "pt_files").mkdir()
    torch.save(value, tmp_path / "pt_files" / "s.pt")
    with pytest.raises(ExternalFileError, match=message):
        open_feature_set(tmp_path).features("s")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_tensors_that_would_run_code_are_refused(tmp_path, capsys):
    (tmp_path / "pt_files").mkdir()
    (tmp_path / "pt_files" / "s.pt").write_bytes(pickle.dumps(Evil()))
    torch.save(Evil(), tmp_path / "pt_files" / "t.pt")
    (tmp_path / "pt_files" / "u.pt").write_bytes(b"PK\x03\x04 nothing")
    features = open_feature_set(tmp_path)
    for slide_id in features.slide_ids:
        with pytest.raises(ExternalFileError, match="can't be read as a tensor"):
            features.features(slide_id)
    assert "executed" not in capsys.readouterr().out


def test_half_precision_tensors_are_taken(tmp_path):
    (tmp_path / "pt_files").mkdir()
    values = torch.randn(5, 4)
    torch.save(values.bfloat16(), tmp_path / "pt_files" / "b.pt")
    torch.save(values.half(), tmp_path / "pt_files" / "h.pt")
    features = open_feature_set(tmp_path)
    np.testing.assert_array_equal(features.features("b"), values.bfloat16().float().numpy())
    assert features.features("h").dtype == np.float16
    assert features.shape("b") == (5, 4)


@pytest.mark.parametrize("slide_id", ["../x", "a/b", "a\\b", ".hidden", "", "a\0b"])
@pytest.mark.parametrize("to", ["wsi-ncmi", "clam"])
def test_ids_stay_names(tmp_path, slide_id, to):
    bag = TileBag(slide_id, GOOD, TileMetadata(), PLACES)
    with pytest.raises(ExternalFileError, match="can't name a file"):
        writer_for(to, tmp_path / "out", overwrite=False, origin="packed").write(bag)
    assert not (tmp_path / "out").exists()


def test_rounding_is_announced(tmp_path):
    exact = np.float32(1) + np.arange(12, dtype=np.float32).reshape(3, 4) / 1024
    assert to_half(exact, tmp_path)[1] == 0
    rounded = exact + np.float32(1e-4)
    half, error = to_half(rounded, tmp_path)
    assert 1e-5 < error < 3e-4
    np.testing.assert_array_equal(half, rounded.astype(np.float16))
    h5(tmp_path / "clam" / "h5_files" / "s.h5", features=rounded, coords=PLACES)
    result = convert(ConvertConfig(features=tmp_path / "clam", to="wsi-ncmi", out=tmp_path / "out"))
    assert result.notes == ("1 converted of 1 slide.", "rounded to float16 (1 of 1).")
    (row,) = read_ledger(tmp_path / "out" / "conversion.csv")
    assert row.reason.startswith("rounded to float16, relative error ")
    assert to_half(np.zeros((2, 2), np.float32), tmp_path)[1] == 0
    assert to_half(np.zeros((0, 2), np.float64), tmp_path)[0].shape == (0, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("power", [-300, -44, -30, -8, -4, -2, 0, 4, 5, 30, 300])
def test_rounding_at_every_scale(tmp_path, dtype, power):
    with np.errstate(over="ignore", under="ignore"):
        values = (np.random.default_rng(0).normal(size=(50, 7)) * 10.0**power).astype(dtype)
    if not np.isfinite(values).all() or not values.any():
        return
    exact = values.astype(np.longdouble)
    with np.errstate(over="ignore"):
        lost = values.astype(np.float16).astype(np.longdouble) - exact
    if not np.isfinite(lost).all():
        with pytest.raises(ExternalFileError, match="beyond the 65504"):
            to_half(values, tmp_path)
        return
    expected = float(np.sqrt((lost**2).sum() / (exact**2).sum()))
    if expected > 1e-3:
        with pytest.raises(ExternalFileError, match="so small"):
            to_half(values, tmp_path)
    else:
        assert to_half(values, tmp_path)[1] == pytest.approx(expected, rel=1e-3)


def test_tiles_that_are_there_twice_are_kept_once(tmp_path):
    h5(tmp_path / "clam" / "h5_files" / "s.h5", features=GOOD, coords=PLACES[[0, 0, 1]])
    result = convert(ConvertConfig(features=tmp_path / "clam", to="wsi-ncmi", out=tmp_path / "out"))
    assert "1 tiles were there twice and are kept once (1 of 1)." in result.notes
    assert open_features_file(next(tmp_path.rglob("unknown/s.h5"))).n_tiles == 2


def test_a_tile_beyond_the_edge_is_said(tmp_path):
    makers.trident(tmp_path / "features_x", "s")
    with h5py.File(tmp_path / "features_x" / "s.h5", "a") as handle:
        handle["coords"].attrs["level0_width"] = 2400
    result = convert(ConvertConfig(features=tmp_path / "features_x", to="wsi-ncmi", out=tmp_path / "out"))
    assert any("beyond the slide's edge" in note for note in result.notes)
    assert all(verdict.ok for verdict in verify_folder(tmp_path / "out"))


@pytest.mark.parametrize("to", ["wsi-ncmi", "clam", "trident"])
def test_output_that_is_there(tmp_path, to):
    folder, out = tmp_path / "features_x", tmp_path / "out"
    make = makers.stamp if to == "trident" else makers.trident
    make(folder, "a", seed=1)
    make(folder, "b", seed=2)
    request = ConvertConfig(features=folder, to=to, out=out, default_mpp=0.5)
    convert(request)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.h5")}
    next(path for path in before if path.name == "a.h5").unlink()
    again = convert(request)
    # Resumed: what was missing is made, what was there is left alone.
    assert again.notes[0] == "1 converted, 1 there already of 2 slides."
    assert all(
        path.stat().st_mtime_ns == time for path, time in before.items() if not path.name.startswith("a")
    )
    make(folder, "a", seed=3)
    refused = convert(request)
    assert len(refused.failures) == 1
    assert "is there with other content; give --overwrite" in refused.failures[0]
    replaced = convert(ConvertConfig(features=folder, to=to, out=out, default_mpp=0.5, overwrite=True))
    assert not replaced.failures
    assert not convert(request).failures


def test_a_disk_that_is_gone_stops_the_job(tmp_path):
    makers.trident(tmp_path / "features_x", "a")
    out = tmp_path / "out"
    out.mkdir()
    (out / "h5_files").write_text("in the way")
    with pytest.raises((JobStoppedError, ExternalFileError, InputError), match="h5_files"):
        convert(ConvertConfig(features=tmp_path / "features_x", to="clam", out=out))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"to": "trident"}, "in the format trident already"),
        ({"labels": "x.csv"}, "carry no labels"),
    ],
)
def test_requests_that_make_no_sense(tmp_path, change, message):
    makers.trident(tmp_path / "features_x", "a")
    with pytest.raises(InputError, match=message):
        convert(
            ConvertConfig(
                **({"features": tmp_path / "features_x", "to": "clam", "out": tmp_path / "o"} | change)
            )
        )
    assert not (tmp_path / "o").exists()


def test_mixed_widths_are_refused_before_anything_is_written(tmp_path):
    makers.clam(tmp_path / "c", "a", pt=False)
    h5(tmp_path / "c" / "h5_files" / "b.h5", features=GOOD, coords=PLACES)
    with pytest.raises(
        InputError, match="mixes encoders: slide 'b' has embeddings of 4 dimensions and 'a' of 6"
    ):
        convert(ConvertConfig(features=tmp_path / "c", to="wsi-ncmi", out=tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_what_a_format_needs_and_nobody_knows_is_asked_for(tmp_path):
    makers.clam(tmp_path / "c", "a")
    for to in ("trident", "stamp"):
        result = convert(ConvertConfig(features=tmp_path / "c", to=to, out=tmp_path / to))
        assert "--default-mpp or --mpp-table" in result.failures[0]


def test_an_mpp_table_goes_before_the_default(tmp_path):
    makers.clam(tmp_path / "c", "a", patches=True)
    makers.clam(tmp_path / "c", "b.1", patches=True)
    table = tmp_path / "mpp.csv"
    table.write_text("slide_id;mpp\na.svs;0,5\nB.1;0,5\n")
    result = convert(
        ConvertConfig(
            features=tmp_path / "c", to="wsi-ncmi", out=tmp_path / "o", default_mpp=0.25, mpp_table=table
        )
    )
    found = {p.stem: open_features_file(p).identity for p in (tmp_path / "o").rglob("*.h5")}
    assert {name: (i.mpp_level0_x, i.mpp_target) for name, i in found.items()} == {
        "a": (0.5, 1.0),
        "b.1": (0.25, 0.5),
    }
    assert "1 slide of mpp.csv not here, such as 'B.1'." in result.notes


def test_several_folders_must_be_chosen_from(tmp_path):
    job = tmp_path / "20x_256px_0px_overlap"
    makers.trident(job / "features_a", "s")
    assert open_feature_set(tmp_path).path == job / "features_a"
    makers.trident(job / "features_b", "s")
    h5(job / "patches" / "s_patches.h5", coords=PLACES)
    with pytest.raises(InputError, match=r"several encoders \(features_a, features_b\)"):
        open_feature_set(tmp_path)
    with pytest.raises(InputError, match="don't exist"):
        open_feature_set(tmp_path / "nowhere")
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(InputError, match="neither a folder"):
        open_feature_set(tmp_path / "x.txt")


def test_cohort_files_of_the_acmil_family(tmp_path):
    path = tmp_path / "cohort.h5"
    makers.acmil(path, {"TCGA.1": 4, "b": 3})
    features = open_feature_set(path)
    assert features.slide_ids == ("TCGA.1", "b")
    assert features.labels() == {"TCGA.1": "0", "b": "1"}
    assert features.shape("b") == (3, makers.WIDTH)
    convert(ConvertConfig(features=path, to="wsi-ncmi", out=tmp_path / "o"))
    assert sorted(v.n_tiles for v in verify_folder(tmp_path / "o")) == [3, 4]
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError, match="can't be read"):
        open_feature_set(path)
    with h5py.File(tmp_path / "none.h5", "w"):
        pass
    with pytest.raises(InputError, match="holds no slides"):
        open_feature_set(tmp_path / "none.h5")


def in_another_file(handle: h5py.File, kind: str) -> None:
    """Makes the table ``features`` (3, 4) one of another file."""
    if kind == "external storage":
        handle.create_dataset("features", (3, 4), "<f4", external=[("/etc/passwd", 0, 48)])
    elif kind == "external link":
        handle["features"] = h5py.ExternalLink("../secret.h5", "features")
    elif kind == "soft link out":
        handle["far"] = h5py.ExternalLink("../secret.h5", "/")
        handle["features"] = h5py.SoftLink("far/features")
    elif kind == "endless link":
        handle["features"] = h5py.SoftLink("/features")
    elif kind == "link to a pipe":
        handle["features"] = h5py.ExternalLink("../pipe", "features")
    elif kind == "virtual":
        layout = h5py.VirtualLayout((3, 4), "<f4")
        layout[:] = h5py.VirtualSource("../secret.h5", "features", (3, 4))
        handle.create_virtual_dataset("features", layout)
    elif kind == "unwritten":
        handle.create_dataset("features", (3, 4), "<f4")
    elif kind == "inflated":
        handle.create_dataset("features", (1 << 40, 4), "<f4", chunks=(1 << 10, 4), compression="gzip")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("external storage", "takes its numbers from another file"),
        ("external link", "is a link to another file"),
        ("soft link out", "is a link to another file"),
        ("endless link", "is a link without an end|has no table"),
        ("link to a pipe", "is a link to another file"),
        ("virtual", "takes its numbers from another file"),
        ("unwritten", "was never written"),
        ("inflated", "was never written"),
    ],
)
@pytest.mark.parametrize("tool", ["clam", "trident", "stamp", "acmil"])
def test_no_table_is_taken_from_another_file(tmp_path, tool, kind, message):
    name = {"stamp": "feats", "acmil": "feat"}.get(tool, "features")
    h5(tmp_path / "secret.h5", features=GOOD)
    os.mkfifo(tmp_path / "pipe")
    folder = tmp_path / {"trident": "features_x"}.get(tool, "s")
    folder.mkdir()

    def fill(handle, bad):
        if bad:
            in_another_file(handle, kind)
            handle.move("features", name)
        else:
            handle[name] = GOOD
        handle["coords"] = PLACES

    if tool == "acmil":
        with h5py.File(folder / "c.h5", "w") as handle:
            fill(handle.create_group("a"), False)
            fill(handle.create_group("b"), True)
            handle["d"] = h5py.ExternalLink("../secret.h5", "/")
        features = open_feature_set(folder / "c.h5")
        assert features.slide_ids == ("a", "b", "d")
        with pytest.raises(ExternalFileError, match="link to another file"):
            features.bag("d")
    else:
        for slide_id in "ab":
            with h5py.File(folder / f"{slide_id}.h5", "w") as handle:
                fill(handle, slide_id == "b")
                handle.attrs["tile_size_um"] = 256.0
        features = open_feature_set(folder)
    assert features.shape("a") == (3, 4)
    for ask in (features.shape, features.features, features.bag):
        with pytest.raises(ExternalFileError, match=message):
            ask("b")


def test_links_within_a_file_are_followed(tmp_path):
    path = h5(tmp_path / "s" / "a.h5", coords=PLACES, stored=GOOD)
    with h5py.File(path, "r+") as handle:
        handle["features"] = h5py.SoftLink("/stored")
    np.testing.assert_array_equal(open_feature_set(tmp_path / "s").features("a"), GOOD)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (GOOD_TENSOR.to_sparse(), "not dense"),
        (torch.empty(3, 4, device="meta"), "without numbers"),
        ("quantised", "quantised|can't be read as a tensor"),
        (torch.zeros(1, 1).expand(1 << 40, 4), "claims .* and holds fewer"),
        (GOOD_TENSOR.to(torch.complex64), "holds torch.complex64"),
        (torch.nn.Linear(3, 4).state_dict(), "OrderedDict, not a tensor"),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize:UserWarning")
def test_tensors_that_are_no_dense_table(tmp_path, value, message):
    (tmp_path / "pt_files").mkdir()
    if isinstance(value, str):
        value = torch.quantize_per_tensor(GOOD_TENSOR, 0.1, 0, torch.qint8)
    torch.save(value, tmp_path / "pt_files" / "b.pt")
    torch.save(GOOD_TENSOR, tmp_path / "pt_files" / "a.pt")
    features = open_feature_set(tmp_path)
    for ask in (features.shape, features.features, features.bag):
        with pytest.raises(ExternalFileError, match=message):
            ask("b")
    result = convert(ConvertConfig(features=tmp_path, to="packed", out=tmp_path / "bags.npz"))
    assert [failure[:3] for failure in result.failures] == ["b: "]


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        (PLACES - 512, "outside of the slide"),
        (PLACES.astype(np.float64) * 1e300, "outside of the slide"),
        (PLACES.astype(np.uint64) + np.uint64(2**63), "outside of the slide"),
        (PLACES + 2**62, "outside of the slide"),
    ],
)
@pytest.mark.parametrize("to", ["wsi-ncmi", "clam"])
def test_places_that_are_no_places_are_a_row(tmp_path, coords, message, to):
    folder = tmp_path / "features_x"
    for slide_id, places in (("a", PLACES), ("b", coords)):
        path = h5(folder / f"{slide_id}.h5", features=GOOD, coords=places)
        with h5py.File(path, "r+") as handle:
            handle["coords"].attrs["level0_magnification"] = 20
    result = convert(ConvertConfig(features=folder, to=to, out=tmp_path / "out"))
    assert len(result.failures) == 1
    assert message in result.failures[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("level0_magnification", 1e-300), ("level0_width", np.inf), ("level0_width", 1e200),
        ("overlap", -5), ("patch_size_level0", np.inf),
    ],
)  # fmt: skip
def test_sizes_that_no_slide_has_are_a_row(tmp_path, name, value):
    folder = tmp_path / "features_x"
    for slide_id in "ab":
        path = h5(folder / f"{slide_id}.h5", features=GOOD, coords=PLACES)
        with h5py.File(path, "r+") as handle:
            sound = {"level0_magnification": 20, "target_magnification": 10, "patch_size": 256,
                     "patch_size_level0": 512, "level0_width": 5000, "level0_height": 5000}  # fmt: skip
            handle["coords"].attrs.update(sound | ({name: value} if slide_id == "b" else {}))
    result = convert(ConvertConfig(features=folder, to="wsi-ncmi", out=tmp_path / "out"))
    assert [failure[:3] for failure in result.failures] == ["b: "]
