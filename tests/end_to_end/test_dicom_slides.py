"""DICOM slides through the command line: levels in several folders, ids that stay, and a key in no output."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import pytest
from typer.testing import CliRunner

from tests.slides.test_dicom_inventory import add_slide
from wsi_ncmi.cli.app import app
from wsi_ncmi.slides import read_slides_csv
from wsi_ncmi.slides.pseudonyms import make_key

EXTRACT = (
    "--encoder", "descriptor", "--mpp", "0.5", "--tile-px", "64", "--quiet", "--workers", "1",
    "--set", "tissue.method=threshold",
)  # fmt: skip


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_split_slides_are_extracted_and_resumed_and_the_key_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))  # for the processes that open slides
    monkeypatch.setattr(tempfile, "tempdir", None)
    names = {"ContainerIdentifier": "S24/1", "PatientID": "MRN-77", "PatientName": "Doe^Jane"}
    add_slide(tmp_path / "split", "x/IM1", "y/IM2", **names)
    (tmp_path / "split" / "y" / "notes.txt").write_text("no slide")
    key, out = tmp_path / "site.key", tmp_path / "out"
    make_key(key)
    run(
        "extract",
        tmp_path / "split",
        "--out",
        out,
        *EXTRACT,
        "--dicom-patients",
        "pseudonym",
        "--dicom-key",
        key,
    )
    features = out / "features" / "descriptor" / "S24_1.h5"
    with h5py.File(features) as file:
        assert len(file["features"]) > 3
    (record,) = read_slides_csv(out / "slides.csv")
    assert (len(record.case_id), record.n_levels) == (32, 2)
    secret = key.read_text().strip().encode()
    for path in (path for path in out.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not any(word in content for word in (secret, b"MRN-77", b"Doe", b"site.key")), path
    written = features.stat().st_mtime_ns
    # The id stays, whatever is asked for later.
    run("extract", tmp_path / "split", "--out", out, *EXTRACT, "--dicom-id", "file")
    assert list(features.parent.glob("*.h5")) == [features]
    assert features.stat().st_mtime_ns == written
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--dicom-patients", "pseudonym"), "pseudonyms need the key of the site"),
        (("--dicom-key", "site.key"), "pseudonyms need the key of the site"),
        (("--new-dicom-key",), "name its file with --dicom-key"),
        (("--dicom-patients", "pseudonym", "--dicom-key", "none.key"), "make one, once for a site"),
        (("--dicom-id", "barcode"), "container"),
    ],
)
def test_wrong_flags_are_one_sentence(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    add_slide(tmp_path, "1.dcm")
    result = CliRunner().invoke(app, ["inventory", str(tmp_path), "--out", str(tmp_path / "o.csv"), *flags])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "o.csv").exists()
