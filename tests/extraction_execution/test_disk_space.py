"""The forecast of disk space against what jobs really write."""

from __future__ import annotations

import logging
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.disk_space import check_space, forecast
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.slides import SlideRecord
from wsi_ncmi.tiling import GridConfig

CARD = load_encoder(EncoderConfig()).info
Usage = namedtuple("Usage", "total used free")


def task(out: Path, *, side_px: int = 40_960, name: str = "a", **more) -> SlideTask:
    record = SlideRecord(
        name, f"{name}.svs", "openslide", "aperio", side_px, side_px, 1, 0.25, 0.25, "", "f", 1, **more
    )
    return SlideTask(record, ExtractConfig(slides=out, out=out, grid=GridConfig(mpp=0.5, tile_px=256)))


def test_the_forecast_is_that_of_the_whole_slide_and_a_third(tmp_path: Path) -> None:
    found = forecast([task(tmp_path)], replace(CARD, embed_dim=1024))
    tiles = 80 * 80  # 40,960 px of 0.25 µm are 20,480 of 0.5 µm, 80 tiles of 256
    assert found.slides == 1
    assert found.most == pytest.approx(tiles * (1024 * 2 + 26), rel=0.05)
    assert found.likely == pytest.approx(found.most / 3, rel=0.1)


def test_what_is_there_or_will_fail_takes_nothing(tmp_path: Path) -> None:
    there = task(tmp_path)
    path = there.feature_path(CARD.name)
    path.parent.mkdir(parents=True)
    path.touch()
    assert forecast([there, task(tmp_path, name="b", problem="broken")], CARD).slides == 0
    assert forecast([replace(there, config=replace(there.config, overwrite=True))], CARD).slides == 1


@pytest.mark.parametrize(("share", "outcome"), [(0.5, "refused"), (2.0, "warned"), (5.0, "told")])
def test_free_space_decides(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    share: float,
    outcome: str,
) -> None:
    out = tmp_path / "not" / "yet"
    likely = forecast([task(out)], CARD).likely
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, int(likely * share)))
    caplog.set_level(logging.INFO, "wsi_ncmi")
    if outcome == "refused":
        with pytest.raises(
            InputError, match=r"too small: the features of 1 slide .*extraction.check_space=false"
        ):
            check_space([task(out)], CARD)
        assert check_space([task(out)], CARD, refuse=False).slides == 1
        assert "may become too small" in caplog.text
    else:
        check_space([task(out)], CARD)
        assert ("may become too small" in caplog.text) == (outcome == "warned")


def test_a_job_that_does_not_fit_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import tifffile

    slides = tmp_path / "slides"
    slides.mkdir()
    with tifffile.TiffWriter(slides / "a.tif") as writer:
        writer.write(
            np.full((512, 512, 3), 243, np.uint8), tile=(256, 256), photometric="rgb", compression="deflate",
            resolution=(20_000, 20_000), resolutionunit="CENTIMETER", metadata=None,
        )  # fmt: skip
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 1000))
    flags = ["extract", str(slides), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, flags)
    assert result.exit_code == 2
    assert "disk is too small" in result.stderr
    assert not (tmp_path / "out" / "features").exists()
    assert CliRunner().invoke(app, [*flags, "--set", "extraction.check_space=false"]).exit_code == 0


@pytest.mark.real_data
def test_the_real_slide_stays_below_the_forecast(real_data: Path, tmp_path: Path) -> None:
    flags = [
        "extract",
        str(real_data / "slides" / "CMU-1-Small-Region.svs"),
        "--out",
        str(tmp_path),
        "--list",
    ]
    listed = tmp_path / "list.csv"
    listed.write_text("slide_id\nCMU-1-Small-Region\n")
    assert CliRunner().invoke(app, [*flags, str(listed)]).exit_code == 0
    written = sum(
        path.stat().st_size for path in tmp_path.rglob("*") if path.suffix in (".h5", ".jpg", ".geojson")
    )
    record = SlideRecord("x", "x.svs", "openslide", "aperio", 2220, 2967, 1, 0.499, 0.499, "", "f", 1)
    found = forecast([SlideTask(record, ExtractConfig(slides=tmp_path, out=tmp_path))], CARD)
    assert written < found.most
