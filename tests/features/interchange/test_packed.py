"""Packed cohorts: written a slide at a time, bounded before they are inflated, and damage found."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests.features.interchange import makers
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.features import open_features_file
from wsi_ncmi.features.interchange import (
    PackedColumns,
    map_member,
    open_feature_set,
    write_packed,
)
from wsi_ncmi.features.interchange.packed import _member
from wsi_ncmi.workflows.convert import ConvertConfig, convert


def test_packing_there_and_back(tmp_path):
    folder = tmp_path / "features" / "uni_v1"
    kept = {s: makers.ours(folder, s, n, i) for i, (s, n) in enumerate({"a": 5, "b.c": 0, "d": 3}.items())}
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,case_id,label,centre\na,p,x,1\nb.c,q,y,2\n")
    result = convert(ConvertConfig(features=folder, to="packed", out=tmp_path / "o", labels=str(labels)))
    assert result.notes == ("2 slides packed.", "1 slide without a label left out.")
    again = convert(ConvertConfig(features=folder, to="packed", out=tmp_path / "o" / "all.npz"))
    with np.load(again.files["features"]) as plain:
        assert plain["lengths"].tolist() == [5, 0, 3]
        assert plain["slide_id"].tolist() == ["a", "b.c", "d"]
        assert plain["features"].dtype == np.float16
        np.testing.assert_array_equal(
            plain["features"], np.concatenate([kept[s][0] for s in ("a", "b.c", "d")])
        )
        np.testing.assert_array_equal(
            plain["coords"], np.concatenate([kept[s][1] for s in ("a", "b.c", "d")])
        )
    assert isinstance(map_member(again.files["features"], "features"), np.memmap)
    with np.load(result.files["features"]) as plain:
        assert plain["label"].tolist() == ["x", "y"]
        assert plain["case_id"].tolist() == ["p", "q"]
        assert plain["centre"].tolist() == ["1", "2"]
    with pytest.raises(InputError, match="is there already; give --overwrite"):
        convert(ConvertConfig(features=folder, to="packed", out=tmp_path / "o"))
    before = again.files["features"].read_bytes()
    convert(ConvertConfig(features=folder, to="packed", out=tmp_path / "o" / "all.npz", overwrite=True))
    assert again.files["features"].read_bytes() == before
    convert(ConvertConfig(features=again.files["features"], to="wsi-ncmi", out=tmp_path / "back"))
    for path in (tmp_path / "back" / "features" / "uni_v1").glob("*.h5"):
        np.testing.assert_array_equal(open_features_file(path).features, kept[path.name[:-3]][0])
    (folder / "a.h5").write_text("broken")
    partly = convert(ConvertConfig(features=folder, to="packed", out=tmp_path / "partly.npz"))
    assert len(partly.failures) == 1
    with np.load(tmp_path / "partly.npz") as plain:
        assert plain["slide_id"].tolist() == ["b.c", "d"]


def test_packing_never_holds_the_cohort(tmp_path):
    n, slides = 2000, 40

    def features(slide_id):
        return np.full((n, 64), int(slide_id), np.float16)

    ids = [str(i) for i in range(slides)]
    tracemalloc.start()
    write_packed(tmp_path / "bags.npz", PackedColumns(ids, [n] * slides), 64, features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * n * 64 * 2
    with np.load(tmp_path / "bags.npz") as plain:
        np.testing.assert_array_equal(plain["features"][::n, 0], np.arange(slides))


def test_a_slide_that_changes_while_it_is_packed_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"features of a are \(2, 3\), not \(4, 3\)"):
        write_packed(tmp_path / "b.npz", PackedColumns(["a"], [4]), 3, lambda _: np.ones((2, 3), np.float16))
    assert list(tmp_path.iterdir()) == []


def test_large_members_are_possible():
    # Without the 64-bit form an archive of a real cohort would break at 4 GiB.
    assert zipfile.ZIP64_LIMIT < 2**32
    assert _member("x").compress_type == zipfile.ZIP_STORED


def rewritten(path, name, content, compress=zipfile.ZIP_STORED):
    """Replaces one member of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", compress) as archive:
        for entry, data in {**members, name: content}.items():
            archive.writestr(entry, data)


def header(shape, dtype="<f2"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("member", "content", "compress"),
    [
        ("features.npy", header((1 << 60, 1 << 60)), zipfile.ZIP_STORED),
        ("features.npy", header((1 << 40, 6)), zipfile.ZIP_DEFLATED),
        ("features.npy", header((12, 6)) + bytes(1 << 27), zipfile.ZIP_DEFLATED),
        ("features.npy", header((1 << 26, 1)) + bytes(1 << 27), zipfile.ZIP_DEFLATED),
        ("lengths.npy", header((1,), "<i8") + (1 << 62).to_bytes(8, "little"), zipfile.ZIP_STORED),
        ("lengths.npy", header((1,), "<u8") + (1 << 63).to_bytes(8, "little"), zipfile.ZIP_STORED),
        ("slide_id.npy", header((1,), "|O"), zipfile.ZIP_STORED),
        ("features.npy", b"\x93NUMPY\x01\x00\xff\x00" + b"(" * 255, zipfile.ZIP_STORED),
        ("features.npy", b"", zipfile.ZIP_STORED),
    ],
)
def test_a_packed_file_is_bounded_before_it_is_inflated(tmp_path, member, content, compress):
    path = tmp_path / "bags.npz"
    np.savez(path, features=np.ones((12, 6), np.float16), lengths=[12], slide_id=["a"])
    rewritten(path, member, content, compress)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"bags\.npz") as caught:
        open_feature_set(path)
    if len(content) > 1 << 26:
        assert "'lengths' is damaged" not in str(caught.value)
        assert f"of which {member} has {len(content):,}" in str(caught.value)
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()


def test_a_flipped_bit_of_a_packed_file_is_found(tmp_path):
    path = tmp_path / "bags.npz"
    np.savez(path, features=np.ones((12, 6), np.float16), lengths=[12], slide_id=["a"])
    content = bytearray(path.read_bytes())
    content[content.index(np.ones(6, np.float16).tobytes()) + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="'features' is damaged"):
        open_feature_set(path)
