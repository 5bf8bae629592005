"""The picture of a slide: each state of a tile looks its own way, at every size."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from wsi_ncmi.features.thumbnails import DROPPED, EMPTY, KEPT, UNREADABLE, ThumbnailContent, draw_thumbnail

GREY = 200


def draw(states: np.ndarray, cell: float = 40.0, **changes: object) -> np.ndarray:
    """A grey slide of 10 level-0 pixels a picture pixel whose grid has cells of ``cell`` picture pixels."""
    height, width = (round(count * cell) for count in states.shape)
    content = {
        "pixels": np.full((height, width, 3), GREY, np.uint8), "level0_px": (width * 10, height * 10),
        "tissue": [], "artifacts": {}, "step_level0": (cell * 10, cell * 10),
        "states": states.astype(np.uint8), "blurred": np.zeros(states.shape, np.bool_),
    }  # fmt: skip
    picture = np.asarray(draw_thumbnail(ThumbnailContent(**{**content, **changes})), int)
    assert picture.shape[0] > height  # the legend
    return picture[:height, :width]


def changed(picture: np.ndarray) -> np.ndarray:
    return (np.abs(picture - GREY) > 12).any(axis=2)


def test_large_tiles_have_borders_and_keep_their_middle() -> None:
    picture = draw(np.array([[KEPT, EMPTY], [EMPTY, EMPTY]]))
    seen = changed(picture)
    border = np.zeros((80, 80), np.bool_)
    border[:40, :40] = True
    border[1:39, 1:39] = False
    np.testing.assert_array_equal(seen, border)
    assert picture[0, 20, 2] > picture[0, 20, 0] + 60  # blue


def test_what_is_lost_is_crossed_in_its_own_colour() -> None:
    picture = draw(np.array([[DROPPED, UNREADABLE]]))
    for left, red in ((0, False), (40, True)):
        middle = picture[20, left + 20]
        assert changed(picture)[20, left + 20]
        assert (middle[0] > middle[1] + 80) == red
        assert not changed(picture)[20, left + 8]  # beside the cross


def test_small_tiles_are_washed_not_lined() -> None:
    states = np.zeros((100, 100), np.uint8)
    states[:50] = KEPT
    states[60:70] = UNREADABLE
    picture = draw(states, 2.0)
    kept = picture[:100].reshape(-1, 3)
    assert (kept == kept[0]).all()  # even: no grid that would hide the tissue
    assert GREY > kept[0][0] > GREY - 70
    assert not changed(picture[100:120]).any()
    assert (picture[120:140, :, 0] > picture[120:140, :, 1] + 100).all()


def test_areas_of_artefacts_and_blurred_tiles_are_shaded() -> None:
    blurred = np.zeros((2, 2), np.bool_)
    blurred[1, 1] = blurred[0, 0] = True
    states = np.array([[EMPTY, EMPTY], [EMPTY, KEPT]])
    ring = np.zeros((16, 16), np.bool_)  # five picture pixels each
    ring[2:6, 10:14] = True
    ring[3:5, 11:13] = False
    picture = draw(states, blurred=blurred, artifacts={"fold": ring})
    seen = changed(picture)
    assert seen[12, 52]
    assert not seen[20, 60]  # a hole is none of it
    assert not seen[:38, :38].any()  # blur of a tile that was never chosen is nobody's business
    assert (picture[50:70, 50:70, 2] > picture[50:70, 50:70, 0] + 30).all()


def test_the_outline_is_drawn_and_small_pictures_have_room_for_a_legend() -> None:
    picture = draw(np.array([[EMPTY]]), tissue=[shapely.box(100, 100, 300, 300)])
    assert picture[10, 20].tolist() == [0, 140, 60]
    content = ThumbnailContent(
        np.full((20, 30, 3), GREY, np.uint8), (300, 200), [], {}, (0.0001, 0.0001), np.zeros((0, 0), np.uint8),
        np.zeros((0, 0), np.bool_),
    )  # fmt: skip
    whole = draw_thumbnail(content)
    assert whole.width >= 280
    assert (np.asarray(whole)[:20, :30] == GREY).all()


@pytest.mark.parametrize("cell", [0.73, 3.99, 4.0, 4.5, 17.3])
def test_cells_meet_their_tiles_at_any_size(cell: float) -> None:
    rng = np.random.default_rng(0)
    states = rng.choice([EMPTY, KEPT], (30, 30)).astype(np.uint8)
    picture = draw(states, cell)
    height, width = picture.shape[:2]
    rows, columns = (np.minimum(((np.arange(n) + 0.5) / cell).astype(int), 29) for n in (height, width))
    expected = states[np.ix_(rows, columns)] == KEPT
    assert not (changed(picture) & ~expected).any()
    assert changed(picture).sum() > 0.3 * expected.sum() * (1 if cell < 4 else 4 / cell / 2)
