"""Extraction from an inventory that was taken before: the same files, and nothing is opened twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.encoders import load_encoder
from wsi_ncmi.extraction.config import ExecutionConfig, ExtractConfig
from wsi_ncmi.extraction.ledger import read_ledger
from wsi_ncmi.slides import inventory as inventory_module
from wsi_ncmi.workflows.extraction import _record


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    for number in range(4):
        pixels = np.full((512, 512, 3), 243, np.uint8)
        pixels[64:320, 64:320] = np.random.default_rng(number).integers(90, 200, (256, 256, 3))
        with tifffile.TiffWriter(folder / f"s{number}.tif") as writer:
            writer.write(
                pixels, tile=(256, 256), photometric="rgb", compression="deflate", resolution=(20_000, 20_000),
                resolutionunit="CENTIMETER", metadata=None,
            )  # fmt: skip
    (folder / "note.svs").write_text("not a slide")
    return folder


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


@pytest.fixture
def table(slides: Path, tmp_path: Path) -> Path:
    call("inventory", slides, "--out", tmp_path / "slides.csv")
    return tmp_path / "slides.csv"


def features(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("features/*/*.h5")}


def test_parts_of_an_array_make_what_one_job_makes(
    slides: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = ("--tile-px", 64, "--workers", 1)
    assert call("extract", slides, "--out", whole, *flags)[0] == 1  # the text file
    monkeypatch.setattr(
        inventory_module, "inspect_slides", lambda *_: pytest.fail("a slide was looked at anew")
    )
    codes = [
        call("extract", slides, "--out", parts, *flags, "--inventory", table, "--shard", f"{number}/3")[0]
        for number in (1, 2, 3)
    ]
    assert sorted(codes) == [0, 0, 1]
    # The closing job of the template: one ledger over all parts.
    assert call("extract", slides, "--out", parts, *flags, "--inventory", table)[0] == 1
    assert features(parts) == features(whole)
    rows = {row.slide_id: row.status for row in read_ledger(parts / "ledger.csv")}
    assert rows == {"s0": "skipped", "s1": "skipped", "s2": "skipped", "s3": "skipped", "note": "failed"}


def test_the_address_of_a_cluster_is_not_recorded(tmp_path: Path) -> None:
    execution = ExecutionConfig(engine="ray", ray_address="host.example:6379")
    config = ExtractConfig(slides=tmp_path, out=tmp_path, extraction=execution)
    _record(config, load_encoder(config.encoder).info, None, {})
    assert "host.example" not in (tmp_path / "run.json").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "s1.tif is not there any more since slides.csv was written (1 slide"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "instead of"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "write it again with wsi-ncmi inventory"),
    ],
)
def test_a_slide_that_changed_is_told(slides: Path, table: Path, tmp_path: Path, change, words: str) -> None:
    change(slides / "s1.tif")
    code, err = call("extract", slides, "--out", tmp_path / "out", "--inventory", table)
    assert code == 2
    assert words in err
    assert not (tmp_path / "out" / "features").exists()


def test_wrong_use_is_told(slides: Path, table: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out", "--inventory", table)
    code, err = call("extract", slides, *out, "--default-mpp", "0.5")
    assert (code, "the inventory holds the resolution of every slide" in err) == (2, True)
    code, err = call("extract", tmp_path / "nowhere", *out)
    assert (code, "nowhere" in err) == (2, True)
    code, err = call("extract", slides, "--out", tmp_path / "out", "--inventory", slides / "note.svs")
    assert code == 2
    assert "note.svs" in err
