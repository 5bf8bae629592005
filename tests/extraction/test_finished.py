"""A second start of a job that is finished."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.extraction.conftest import write_slide
from wsi_ncmi.core.errors import IdentityConflictError
from wsi_ncmi.extraction.config import ExecutionConfig, ExtractConfig
from wsi_ncmi.extraction.finished import FINISHED
from wsi_ncmi.extraction.ledger import read_ledger
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.tissue import ArtifactConfig
from wsi_ncmi.workflows import extract


@pytest.fixture
def config(tmp_path: Path) -> ExtractConfig:
    slides = tmp_path / "slides"
    slides.mkdir()
    for number in range(2):
        write_slide(slides / f"s{number}.tif", number)
    return ExtractConfig(
        slides=slides, out=tmp_path / "out", grid=GridConfig(mpp=0.5, tile_px=64),
        extraction=ExecutionConfig(workers=1),
    )  # fmt: skip


def start(config: ExtractConfig, caplog: pytest.LogCaptureFixture) -> int:
    """Runs the job; how many slides were taken as they are."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "wsi_ncmi"):
        assert extract(config).exit_code == 0
    said = [record.args[0] for record in caplog.records if "aren't read again" in record.msg]
    return int(said[0].split()[0]) if said else 0


def rows(config: ExtractConfig):
    return [replace(row, seconds=0) for row in read_ledger(config.out / "ledger.csv")]


def spoil(path: Path) -> None:
    """Another byte in the middle, the time of the last change as before."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_is_finished_is_not_read_again_and_its_rows_are_those_of_a_check(config, caplog) -> None:
    assert start(config, caplog) == 0
    assert start(config, caplog) == 2
    taken = rows(config)
    (config.out / FINISHED).unlink()
    assert start(config, caplog) == 0
    assert rows(config) == taken
    assert {row.status for row in taken} == {"skipped"}
    # What was checked is known too, as of an output of an earlier version.
    assert start(config, caplog) == 2


def test_a_file_that_somebody_wrote_to_is_looked_at(config, caplog) -> None:
    start(config, caplog)
    file = config.out / "features" / "descriptor" / "s1.h5"
    sound = file.read_bytes()
    spoil(file)
    assert start(config, caplog) == 1
    assert [row.status for row in rows(config)] == ["skipped", "done"]
    assert "is damaged" in caplog.text
    assert len(file.read_bytes()) == len(sound)
    file.unlink()
    assert start(config, caplog) == 1
    assert [row.status for row in rows(config)] == ["skipped", "done"]


def test_a_slide_that_somebody_wrote_to_is_opened_again(config, caplog) -> None:
    start(config, caplog)
    slide = config.slides / "s0.tif"
    status = slide.stat()
    write_slide(slide, 7)
    os.utime(slide, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(IdentityConflictError, match="the slide's content"):
        extract(config)


def test_other_settings_are_no_finished_job(config, caplog) -> None:
    start(config, caplog)
    with pytest.raises(IdentityConflictError):
        extract(replace(config, grid=replace(config.grid, min_tissue=0.9)))
    # The row tells what these thresholds find, though the features are the same.
    assert start(replace(config, artifacts=ArtifactConfig(blur=0.01)), caplog) == 0


@pytest.mark.parametrize(
    "line", [b"", b"[]", b'{"file": 1}', b'{"file": "features/descriptor/s0.h5"}', b"\xff\x00{"]
)
def test_a_line_that_is_none_is_passed_over(config, caplog, line: bytes) -> None:
    start(config, caplog)
    kept = [text for text in (config.out / FINISHED).read_bytes().splitlines() if b"s0.h5" not in text]
    (config.out / FINISHED).write_bytes(b"\n".join([*kept, line]))
    assert start(config, caplog) == 1
