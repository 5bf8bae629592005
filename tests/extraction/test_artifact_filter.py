"""Artefact scores of tiles, the rule on them, and what of it reaches file, ledger and picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.extraction.conftest import with_config, write_slide
from wsi_ncmi.encoders import Encoder
from wsi_ncmi.extraction.pipeline.pipeline import extract_slide
from wsi_ncmi.extraction.slide import PreparedSlide, prepare_slide
from wsi_ncmi.extraction.slide_analysis import analyse_slide
from wsi_ncmi.extraction.task import SlideTask
from wsi_ncmi.features import open_features_file, verify_file
from wsi_ncmi.slides import open_slide
from wsi_ncmi.tiling import TileGrid, read_tile
from wsi_ncmi.tissue import ARTIFACT_KINDS, ArtifactConfig, ArtifactMap

DROP = ArtifactConfig(rule="drop")
OF_0_1 = '{"blur":0.33,"border":0.1,"detectors":4,"fold":0.1,"pen":0.1,"rule":"drop"}'


@pytest.fixture
def inked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slide's look finds ink on a known rectangle: level-0 x 192…384, y 128…256 (exact in its map)."""

    def look(task: SlideTask, slide):
        found = analyse_slide(task, slide)
        bits = np.zeros((24, 32), np.uint8)
        bits[4:8, 6:12] = 1 << ARTIFACT_KINDS.index("pen")
        return replace(found, artifacts=ArtifactMap(bits, 32.0, 32.0))

    monkeypatch.setattr("wsi_ncmi.extraction.slide.analyse_slide", look)


def prepared_with(task: SlideTask, blur: dict[int, float], monkeypatch) -> PreparedSlide:
    with open_slide(task.slide_path) as slide:
        prepared = prepare_slide(task, slide)
    monkeypatch.setattr(
        "wsi_ncmi.extraction.artifact_filter.tile_blur",
        lambda pixels, mpp: np.array([blur.get(int(tile[0, 0, 0]), 0.0) for tile in pixels], np.float32),
    )
    return prepared


def corners_of(task: SlideTask) -> set[tuple[int, int]]:
    file = open_features_file(task.feature_path("descriptor"))
    return {(int(x), int(y)) for x, y in file.coords}


@pytest.mark.usefixtures("inked")
def test_scores_are_stored_whatever_the_rule(tasks, encoder: Encoder) -> None:
    task = tasks()[1]
    row = extract_slide(task, encoder)
    assert (row.status, row.artifact_tiles) == ("done", 0)
    file = open_features_file(task.feature_path("descriptor"))
    assert file.artifact_kinds == ARTIFACT_KINDS
    assert file.attrs["artifacts_rule"] == "keep"
    # Independent: the overlap of each 64-px tile with the rectangle, by interval arithmetic.
    x, y = file.coords.T
    shared = np.clip(np.minimum(x + 64, 384) - np.maximum(x, 192), 0, 64) * np.clip(
        np.minimum(y + 64, 256) - np.maximum(y, 128), 0, 64
    )
    np.testing.assert_allclose(file.artifacts[:, 0], shared / 64**2, atol=1e-3)
    assert not file.artifacts[:, 1:3].any()
    assert verify_file(file.path).ok
    # Kept ink is told, by the first job and by one that finds the file there.
    assert (row.artifacts_found, row.pen, row.fold, row.blur) == (6, 6, 0, 0)
    assert row.reason == f"6 of {file.n_tiles} tiles show artefacts and were kept (pen 6)"
    again = extract_slide(task, encoder)
    assert (again.status, again.artifacts_found, again.pen) == ("skipped", 6, 6)


@pytest.mark.usefixtures("inked")
def test_dropped_tiles_are_left_out_and_counted(tasks, encoder: Encoder) -> None:
    kept, dropped = tasks()[1], with_config(tasks()[1], artifacts=DROP, out=tasks()[1].out / "b")
    extract_slide(kept, encoder)
    row = extract_slide(dropped, encoder)
    inside = {(x, y) for x in range(192, 384, 64) for y in (128, 192)}
    assert corners_of(kept) - corners_of(dropped) == inside
    assert corners_of(dropped) < corners_of(kept)
    whole, part = (open_features_file(task.feature_path("descriptor")) for task in (kept, dropped))
    rows = {tuple(corner): number for number, corner in enumerate(whole.coords.tolist())}
    chosen = [rows[tuple(corner)] for corner in part.coords.tolist()]
    np.testing.assert_array_equal(part.features, whole.features[chosen])
    np.testing.assert_array_equal(part.tissue_fraction, whole.tissue_fraction[chosen])
    assert (row.tiles, row.artifact_tiles) == (whole.n_tiles - 6, 6)
    assert row.reason == f"6 of {whole.n_tiles} tiles were dropped for artefacts (pen 6)"
    assert part.n_artifact_tiles == 6
    assert '"pen":0.1' in part.attrs["artifacts_rule"]
    again = extract_slide(dropped, encoder)
    assert (row.artifacts_found, row.pen) == (6, 6)
    assert (again.status, again.artifact_tiles, again.artifacts_found) == ("skipped", 6, 6)
    with open_slide(dropped.slide_path) as slide:  # what the overview shows is not even read
        assert len(prepare_slide(dropped, slide).selection) == whole.n_tiles - 6


def test_the_rule_and_its_thresholds_are_part_of_the_identity(tasks, encoder: Encoder) -> None:
    keep = with_config(tasks()[1], artifacts=ArtifactConfig(pen=0.9)).identity(encoder.info)
    assert keep == tasks()[1].identity(encoder.info)  # thresholds of a rule that drops nothing change nothing
    drop = with_config(tasks()[1], artifacts=DROP).identity(encoder.info)
    other = with_config(tasks()[1], artifacts=ArtifactConfig(rule="drop", pen=0.9)).identity(encoder.info)
    assert len({keep.artifacts_rule, drop.artifacts_rule, other.artifacts_rule}) == 3
    # Tiles that other detectors dropped are not those that these would drop.
    old = with_config(tasks()[1], artifacts=replace(DROP, detectors=4)).identity(encoder.info)
    assert old != drop
    assert old.artifacts_rule == OF_0_1  # what 0.1 dropped goes on when its detectors are asked for
    kept = with_config(tasks()[1], artifacts=ArtifactConfig(detectors=4)).identity(encoder.info)
    assert kept == keep


def test_blur_is_seen_on_the_pixels_that_come(tasks, monkeypatch) -> None:
    prepared = prepared_with(with_config(tasks()[1], artifacts=DROP), {7: 0.75, 8: 0.25}, monkeypatch)
    pixels = np.zeros((3, 64, 64, 3), np.uint8)
    pixels[:, 0, 0, 0] = (7, 8, 9)
    rows = np.array([4, 2, 0])
    np.testing.assert_array_equal(prepared.artifact_filter.score(rows, pixels), [False, True, True])
    np.testing.assert_array_equal(
        prepared.artifact_filter.scores[rows, 3], np.array([0.75, 0.25, 0], np.float16)
    )
    assert np.flatnonzero(prepared.artifact_filter.scored).tolist() == [0, 2, 4]
    assert np.flatnonzero(prepared.artifact_filter.dropped).tolist() == [4]


def test_real_blur_drops_a_soft_tile_and_not_its_sharp_original(tasks, monkeypatch) -> None:
    from scipy import ndimage

    rng = np.random.default_rng(1)
    sharp = np.full((256, 256, 3), 200.0)
    for _ in range(900):  # nuclei: dark discs of 6 µm with edges
        x, y = rng.integers(0, 256, 2)
        yy, xx = np.ogrid[:256, :256]
        sharp[(xx - x) ** 2 + (yy - y) ** 2 < 36] = 60
    soft = ndimage.gaussian_filter(sharp, (5, 5, 0))
    prepared = prepared_with(with_config(tasks()[1], artifacts=DROP), {}, monkeypatch)
    monkeypatch.undo()
    good = prepared.artifact_filter.score(np.array([0, 1]), np.stack((sharp, soft)).astype(np.uint8))
    assert good.tolist() == [True, False]


def test_a_slide_that_loses_every_tile_is_done_with_the_reason(tasks, encoder: Encoder, monkeypatch) -> None:
    def look(task: SlideTask, slide):
        bits = np.full((24, 32), 1 << ARTIFACT_KINDS.index("border"), np.uint8)
        return replace(analyse_slide(task, slide), artifacts=ArtifactMap(bits, 32.0, 32.0))

    monkeypatch.setattr("wsi_ncmi.extraction.slide.analyse_slide", look)
    task = with_config(tasks()[1], artifacts=DROP)
    row = extract_slide(task, encoder)
    assert (row.status, row.tiles) == ("done", 0)
    assert row.artifact_tiles > 20
    assert row.reason.startswith("all tiles are lost: ")
    assert f"(border {row.artifact_tiles})" in row.reason
    file = open_features_file(task.feature_path("descriptor"))
    assert file.features.shape == (0, encoder.info.embed_dim)
    assert file.artifacts.shape == (0, 4)
    assert verify_file(file.path).ok


@pytest.mark.usefixtures("inked")
def test_the_picture_shows_what_became_of_tiles(tasks, encoder: Encoder) -> None:
    task = with_config(tasks()[1], artifacts=DROP)
    extract_slide(task, encoder)
    with Image.open(task.thumbnail_path) as picture:
        shown = np.asarray(picture.convert("RGB"), int)
    # The slide has 1024 px and its picture 512: each picture pixel stands for two of level 0 along each side.
    r, g, b = np.moveaxis(shown[:384].repeat(2, axis=0).repeat(2, axis=1), 2, 0)
    blue = (b - np.maximum(r, g)) > 25
    orange = (r - b > 40) & (g - b > 20)
    # Kept tiles have blue borders, none of the inked has.
    assert blue[:, 192 + 64 * 4].sum() + blue[:, 192 + 64 * 4 - 1].sum() > 100
    assert not blue[136:250, 200:376].any()
    assert orange[136:250, 200:376].mean() > 0.5
    assert not orange[300:500, 400:560].any()


def test_wrong_counts_are_refused(tasks, encoder: Encoder) -> None:
    task = tasks()[1]
    with open_slide(task.slide_path) as slide:
        prepared = prepare_slide(task, slide)
        count = len(prepared.selection)
        features, kept = np.zeros((count, 3), np.float32), np.ones(count, np.bool_)
        with pytest.raises(ValueError, match="are not those of"):
            prepared.assemble(features, kept, 0, encoder.info, "", slide)  # none of them was screened


def test_the_picture_comes_from_the_overview_where_that_is_large_enough(
    tasks, tmp_path: Path, monkeypatch
) -> None:
    """A slide is read a second time only where its overview is too small to be looked at."""
    write_slide(tmp_path / "in" / "a.tif", 1)
    (task,) = tasks(root=tmp_path / "in")
    read = []
    monkeypatch.setattr(
        "wsi_ncmi.extraction.slide_analysis.thumbnail",
        lambda *a: read.append(a) or np.zeros((768, 1024, 3), np.uint8),
    )
    with open_slide(task.slide_path) as slide:
        analyse_slide(task, slide)
        assert len(read) == 1
        fine = with_config(task, tissue=replace(task.config.tissue, working_mpp=0.5))
        picture = analyse_slide(fine, slide).thumbnail
        assert len(read) == 1
        grid = TileGrid.plan(slide.levels, task.mpp, task.config.grid)
        np.testing.assert_array_equal(picture[128:192, 192:256], read_tile(slide, grid, 2 * 16 + 3))


def test_several_sets_look_at_the_slide_once(tasks, encoder: Encoder, monkeypatch) -> None:
    import wsi_ncmi.extraction.slide_analysis as slide_analysis

    looks = []
    real = slide_analysis.analyse_tissue
    monkeypatch.setattr(slide_analysis, "analyse_tissue", lambda *a: looks.append(a) or real(*a))
    main = replace(tasks()[1], n_sets=2)
    further = with_config(replace(main, features_set="1um"), grid=replace(main.config.grid, mpp=1.0))
    rows = [extract_slide(task, encoder) for task in (main, further)]
    assert [row.status for row in rows] == ["done", "done"]
    assert len(looks) == 1
    assert further.feature_path("descriptor").parent.name == "descriptor@1um"
    assert open_features_file(further.feature_path("descriptor")).attrs["mpp_target"] == 1.0
    assert main.thumbnail_path != further.thumbnail_path
    assert further.tissue_path is None
    assert slide_analysis._SHARED._found == {}  # the last one took it away
