"""Features are compared with their checksum before use, once for each change of the file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.features.interchange import makers
from wsi_ncmi.cohorts.bags import FeatureFolder
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.extraction.ledger import read_ledger
from wsi_ncmi.features import checksum_trailer, open_features_file, read_identity, verify_file
from wsi_ncmi.features.checksum_trailer import make_trailer
from wsi_ncmi.workflows.convert import ConvertConfig, convert


def flip(path: Path, what: str, *, keep_times: bool = False) -> None:
    """Flips one bit of a feature file: in its ``features``, its ``coords``, or its attributes."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        places = {
            "features": file["features"].id.get_offset() + 5,
            "coords": file["coords"].id.get_offset() + 8,
            "attributes": content.index(b"mpp_target") + 2,
        }
    content[places[what]] ^= 1
    path.write_bytes(content)
    if keep_times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for slide_id in ("a", "b"):
        makers.ours(tmp_path / "out" / "features" / "uni_v1", slide_id)
    return next((tmp_path / "out" / "features").iterdir())


@pytest.mark.parametrize("keep_times", [False, True])
@pytest.mark.parametrize("what", ["features", "coords", "attributes"])
def test_one_flipped_bit_is_no_features(folder: Path, what: str, keep_times: bool) -> None:
    source = FeatureFolder(folder)
    source.load("a")
    flip(folder / "a.h5", what, keep_times=keep_times)
    with pytest.raises(InputError, match=r"a\.h5 is damaged: its bytes are not those that were written"):
        source.load("a")
    source.load("b")
    with pytest.raises(InputError):
        _ = open_features_file(folder / "a.h5").features
    with pytest.raises(InputError):
        _ = open_features_file(folder / "a.h5").coords


def test_a_damaged_slide_fails_alone_in_a_conversion(folder: Path, tmp_path: Path) -> None:
    flip(folder / "a.h5", "features")
    for to in ("clam", "packed"):
        result = convert(ConvertConfig(features=folder, to=to, out=tmp_path / to))
        assert result.exit_code == 1
        rows = {row.slide_id: row.status for row in read_ledger(tmp_path / to / "conversion.csv")}
        assert rows == {"a": "failed", "b": "done"}


@pytest.mark.parametrize("to", ["clam", "packed"])
def test_a_conversion_into_its_own_source_is_refused(folder: Path, to: str) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(InputError, match="holds the features; give another folder"):
        convert(ConvertConfig(features=folder, to=to, out=folder / ".." / folder.name))
    assert sorted(folder.iterdir()) == before


def test_each_file_is_compared_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    real = checksum_trailer.trailer_error
    monkeypatch.setattr(
        checksum_trailer, "trailer_error", lambda path: compared.append(path.name) or real(path)
    )
    source = FeatureFolder(folder)
    for _ in range(3):  # the epochs of a training
        source.load("a")
    assert compared == ["a.h5"]
    shutil.copy(folder / "a.h5", folder / "copy")
    os.replace(folder / "copy", folder / "a.h5")
    for _ in range(3):
        source.load("a")
    assert compared == ["a.h5", "a.h5"]


def seal(path: Path) -> None:
    content = path.read_bytes()
    content = content[: content.rindex(b"\nwsi-ncmi seal")] if b"\nwsi-ncmi seal" in content else content
    path.write_bytes(content + make_trailer(content))


def replace_table(name: str, values: np.ndarray):
    def change(file: h5py.File) -> None:
        attrs = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=values).attrs.update(attrs)

    return change


def external(file: h5py.File) -> None:
    shape = file["features"].shape
    del file["features"]
    file.create_dataset("features", shape, "<f2", external=[("/etc/hostname", 0, 1 << 20)])


def linked(file: h5py.File) -> None:
    del file["features"]
    file["features"] = h5py.ExternalLink("other.h5", "features")


def softly_linked(file: h5py.File) -> None:
    del file["coords"]
    file["out"] = h5py.ExternalLink("other.h5", "/")
    file["coords"] = h5py.SoftLink("/out/coords")


def virtual(file: h5py.File) -> None:
    shape = file["features"].shape
    del file["features"]
    layout = h5py.VirtualLayout(shape, "<f2")
    layout[:] = h5py.VirtualSource("missing.h5", "features", shape)
    file.create_virtual_dataset("features", layout)


def never_written(file: h5py.File) -> None:
    shape = file["features"].shape
    del file["features"]
    file.create_dataset("features", shape, "<f2")


@pytest.mark.parametrize(
    "change",
    [
        external, linked, softly_linked, virtual, never_written,
        replace_table("coords", np.zeros((12, 3), np.int64)),
        replace_table("coords", np.zeros((12, 2), np.float64)),
        replace_table("coords", np.full((12, 2), -1, np.int64)),
        replace_table("coords", np.full((12, 2), -(2**63), np.int64)),
        replace_table("coords", np.full((12, 2), 2**63, np.uint64)),
        replace_table("features", np.zeros((12, 0), np.float16)),
        replace_table("features", np.zeros((12, 6), np.int64)),
        replace_table("features", np.zeros(12, np.float16)),
        lambda file: file.attrs.__delitem__("slide_id"),
        lambda file: file.attrs.__setitem__("n_tiles", 11),
        lambda file: file.attrs.__setitem__("slide_id", np.arange(3)),
    ],
)  # fmt: skip
def test_a_changed_and_sealed_file_is_a_slide_that_fails(folder: Path, tmp_path: Path, change) -> None:
    with h5py.File(folder / "a.h5", "r+") as file:
        change(file)
    seal(folder / "a.h5")
    with pytest.raises(InputError):
        _ = FeatureFolder(folder).load("a"), FeatureFolder(folder).coordinates("a")
    result = convert(ConvertConfig(features=folder, to="clam", out=tmp_path / "clam"))
    assert result.exit_code == 1
    rows = {row.slide_id: row.status for row in read_ledger(tmp_path / "clam" / "conversion.csv")}
    assert rows == {"a": "failed", "b": "done"}


@pytest.mark.parametrize(
    ("table", "name", "value"),
    [("/", "artifacts_rule", None), ("/", "mpp_target", "x"), ("coords", "level0_width", "x")],
)
def test_a_missing_or_garbled_attribute_is_told_by_name_or_value(
    folder: Path, tmp_path: Path, table: str, name: str, value: object
) -> None:
    with h5py.File(folder / "a.h5", "r+") as file:
        del file[table].attrs[name]
        if value is not None:
            file[table].attrs[name] = value
    seal(folder / "a.h5")
    problem = verify_file(folder / "a.h5").problem
    assert (name if value is None else repr(value)) in problem
    assert "Error" not in problem
    convert(ConvertConfig(features=folder, to="clam", out=tmp_path / "clam"))
    reasons = {row.slide_id: row.reason for row in read_ledger(tmp_path / "clam" / "conversion.csv")}
    assert (name if value is None else repr(value)) in reasons["a"]
    assert "Error" not in reasons["a"]
    assert not reasons["b"]


@pytest.mark.parametrize("use", ["open", "bags", "coordinates", "identity", "verify", "convert"])
def test_zeros_among_the_texts_are_refused_where_hdf5_would_work_without_end(
    folder: Path, tmp_path: Path, use: str
) -> None:
    content = bytearray((folder / "a.h5").read_bytes())
    heap = content.index(b"GCOL") + 200
    content[heap : heap + 400] = bytes(400)
    (folder / "a.h5").write_bytes(content)
    if use in ("open", "bags"):
        with pytest.raises(InputError, match="its texts are damaged"):
            open_features_file(folder / "a.h5") if use == "open" else FeatureFolder(folder)
    elif use == "coordinates":
        seal(folder / "a.h5")
        with pytest.raises(InputError, match="its texts are damaged"):
            _ = open_features_file(folder / "a.h5").coords
    elif use == "identity":
        assert read_identity(folder / "a.h5") is None
    elif use == "verify":
        seal(folder / "a.h5")
        assert "its texts are damaged" in verify_file(folder / "a.h5").problem
    else:
        convert(ConvertConfig(features=folder, to="stamp", out=tmp_path / "out"))
        reasons = {row.slide_id: row.reason for row in read_ledger(tmp_path / "out" / "conversion.csv")}
        assert "its texts are damaged" in reasons["a"]
        assert "texts" not in reasons["b"]
