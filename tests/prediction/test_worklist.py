"""The worklist: its order, its choices, and the pages of its slides with verdicts and drawings."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import shapely

from tests.prediction.answers import (
    ABSTAINED,
    ALL,
    FAILED,
    FLAGGED,
    SIZE,
    SOUND,
    SURE,
    answer,
    write_answers,
    write_slide,
    write_values,
)
from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.prediction.verdicts import read_verdicts
from wsi_ncmi.prediction.worklist import PAGE_ROWS, Worklist
from wsi_ncmi.prediction.worklist_pages import WorklistPages
from wsi_ncmi.reporting.heatmaps.files import read_tiles_geojson
from wsi_ncmi.slides import open_slide
from wsi_ncmi.tissue import AnnotationConfig, find_annotations, read_annotations

FIRST_ORDER = [FAILED, ABSTAINED, FLAGGED, SURE, SOUND]  # SURE has a remark on its quality


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_answers(tmp_path / "job")


@pytest.fixture
def pages(folder: Path, tmp_path: Path) -> Iterator[WorklistPages]:
    write_slide(tmp_path / "slides", folder)
    opened = WorklistPages(Worklist(folder, folder), tmp_path / "slides")
    yield opened
    opened.close()


def loaded(pages: WorklistPages, name: str, **query: str) -> Any:
    found = pages.get(name, query)
    assert found is not None
    return json.loads(found[0])


VERDICT = {"verdict": "disagree", "label": "negative", "comment": "see node", "initials": "AB", "prediction": "tumour", "digest": "1" * 64}  # fmt: skip


def test_slides_that_need_a_person_come_first(folder: Path) -> None:
    worklist = Worklist(folder, folder)
    assert worklist.select({}) == [each.slide_id for each in FIRST_ORDER]
    assert [worklist.row(each.slide_id)["needs"] for each in FIRST_ORDER] == [
        "no answer", "abstained", "out of distribution", "quality", "",
    ]  # fmt: skip
    far, near = (answer(f"{i}", 0.5, decision="abstain", ood_score=float(i)) for i in (3, 1))
    sure, unsure = answer("5", 0.9), answer("4", 0.6)
    write_answers(folder, [near, sure, far, unsure])
    assert worklist.select({}) == ["3", "1", "4", "5"]  # the farthest, then the least confident


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"sort": "slide"}, [SOUND, FLAGGED, ABSTAINED, FAILED, SURE]),
        ({"sort": "slide", "order": "down"}, [SURE, FAILED, ABSTAINED, FLAGGED, SOUND]),
        ({"sort": "probability"}, [FAILED, ABSTAINED, FLAGGED, SOUND, SURE]),
        ({"sort": "patient", "show": "open", "search": "P"}, None),
        ({"search": "few tiles"}, [FLAGGED]),
        ({"search": "TUMOUR p1"}, [SOUND]),
        ({"search": "can't be"}, [FAILED, SURE]),
        ({"search": "100%"}, [ABSTAINED]),
        ({"search": "nothing such"}, []),
        ({"show": "person"}, FIRST_ORDER[:4]),
        ({"show": "disagree"}, []),
        ({"show": "no such", "sort": "neither"}, FIRST_ORDER),
    ],
)
def test_the_list_can_be_searched_and_sorted(
    folder: Path, query: dict[str, str], expected: list[Any] | None
) -> None:
    found = Worklist(folder, folder).select(query)
    if expected is None:
        assert set(found) >= {"a sound", "s"}
    else:
        assert found == [each.slide_id for each in expected]


def test_a_page_holds_so_many_rows(folder: Path) -> None:
    write_answers(folder, [answer(f"s{i:03}") for i in range(2 * PAGE_ROWS + 1)])
    worklist = Worklist(folder, folder)
    last = worklist.page({"sort": "slide", "page": "2"})
    assert (last["total"], last["pages"], last["page"]) == (101, 3, 2)
    assert [row["id"] for row in last["rows"]] == ["s100"]
    for odd in ("-1", "99", "x", "", "١"):
        assert worklist.page({"sort": "slide", "page": odd})["page"] == (2 if odd == "99" else 0)


def test_a_second_model_stands_beside(folder: Path, tmp_path: Path) -> None:
    other = [replace(SOUND, prediction="negative", decision="negative"), SURE]
    write_answers(tmp_path / "other", other, "second", "2" * 64)
    worklist = Worklist(folder, folder, tmp_path / "other")
    page = worklist.page({"show": "differ"})
    assert page["other"] == "second"
    assert [(row["id"], row["other"]["decision"]) for row in page["rows"]] == [("a sound", "negative")]
    assert worklist.row("b flagged")["other"] is None
    assert worklist.page({})["counts"] == {"all": 5, "person": 4, "open": 5, "disagree": 0, "differ": 1}


def test_new_answers_are_seen_and_probabilities_are_shown_as_supported(folder: Path) -> None:
    worklist = Worklist(folder, folder)
    assert worklist.row("s")["shown"] == "> 98.0 %"
    write_answers(folder, [*ALL, answer("new")])
    assert "new" in worklist.entries


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 1}', '{"model": {}, "slides": [{}]}'])
def test_what_is_no_output_of_predict_is_told(folder: Path, content: str) -> None:
    (folder / "predictions.json").write_text(content)
    with pytest.raises(InputError, match=r"predictions.json can't be read as answers"):
        Worklist(folder, folder)


def test_a_verdict_is_stored_and_shown(pages: WorklistPages, folder: Path) -> None:
    name = f"slides/{quote('a sound')}"
    assert pages.post(f"{name}/verdict", VERDICT) is not None
    pages.post(f"{name}/verdict", {**VERDICT, "verdict": "agree", "comment": ""})
    first, second = read_verdicts(folder / "verdicts.csv")
    assert (first.slide_id, first.case_id, first.label, first.comment) == (
        "a sound",
        "p1",
        "negative",
        "see node",
    )
    assert (second.verdict, second.label, second.model_digest) == ("agree", "tumour", "1" * 64)
    case = loaded(pages, f"{name}/case.json")
    assert [each["verdict"] for each in case["verdicts"]] == ["disagree", "agree"]
    assert loaded(pages, "rows.json", show="open")["total"] == 4
    assert loaded(pages, "rows.json", search="see node")["total"] == 0  # the latest counts


def test_a_verdict_on_another_answer_than_the_shown_is_refused(pages: WorklistPages, folder: Path) -> None:
    for stale in ({"prediction": "negative"}, {"digest": "2" * 64}, {"digest": None}):
        with pytest.raises(InputError, match="answered anew"):
            pages.post("slides/s/verdict", {**VERDICT, **stale})
    for wrong in (None, [], "agree"):
        with pytest.raises(InputError, match="JSON object"):
            pages.post("slides/s/verdict", wrong)
    assert pages.post("slides/nowhere/verdict", VERDICT) is None
    assert pages.post("slides/s/case.json", VERDICT) is None
    assert not (folder / "verdicts.csv").exists()


def test_the_way_from_slide_to_slide_is_that_of_the_list(pages: WorklistPages) -> None:
    case = loaded(pages, f"slides/{quote(ABSTAINED.slide_id)}/case.json")
    assert (case["previous"], case["next"]) == (FAILED.slide_id, FLAGGED.slide_id)
    assert (case["number"], case["total"]) == (2, 5)
    pages.post("slides/s/verdict", VERDICT)
    case = loaded(pages, "slides/s/case.json", show="open", sort="slide")
    assert (case["previous"], case["next"], case["total"]) == (FAILED.slide_id, None, 5)  # it stays itself


@pytest.mark.parametrize(
    "name",
    ["slides/../x/case.json", "slides/..%2f..%2fetc/thumbnail.jpg", "slides/nowhere/", "slides/s", "slides/s/x.js",
     "slides/s/../../predictions.json", "slides/s/other/info.json", "thumbnails/s.jpg", "predictions.json", "verdicts.csv"],
)  # fmt: skip
def test_nothing_else_is_served(pages: WorklistPages, name: str) -> None:
    assert pages.get(name, {}) is None


def test_a_slide_is_shown_with_the_values_of_both_models(
    pages: WorklistPages, folder: Path, tmp_path: Path
) -> None:
    info = loaded(pages, "slides/s/info.json")
    assert [layer["name"] for layer in info["layers"]] == [
        "attention",
        "evidence negative",
        "evidence tumour",
    ]
    assert (info["width"], info["height"], info["mpp"]) == (*SIZE, [0.5, 0.5])
    tile = pages.get("slides/s/slide/10/0_0.jpg", {})
    assert tile is not None
    assert tile[1] == "image/jpeg"
    other = write_answers(tmp_path / "other")
    write_values(other, "s", ["evidence negative"])
    both = WorklistPages(Worklist(folder, folder, other), tmp_path / "slides")
    assert [each["name"] for each in loaded(both, "slides/s/other/info.json")["layers"]] == [
        "evidence negative"
    ]
    assert both.get("slides/s/other/heat/0/percentile/10/0_0.png", {}) is not None
    both.close()


def test_values_read_back_are_those_written(folder: Path) -> None:
    tiles = write_values(folder, "t", ("attention", "evidence tumour"))
    read = read_tiles_geojson(folder / "attention" / "t.geojson", "t", SIZE)
    np.testing.assert_array_equal(read.coords, tiles.coords)
    assert (read.tile_level0, read.size_level0) == (tiles.tile_level0, SIZE)
    for mine, theirs in zip(read.layers, tiles.layers, strict=True):
        assert (mine.name, mine.kind) == (theirs.name, theirs.kind)
        np.testing.assert_allclose(mine.values, theirs.values)
    for text in ("", "[]", '{"features": []}', '{"features": [{"geometry": null}]}'):
        (folder / "attention" / "t.geojson").write_text(text)
        with pytest.raises(InputError, match=r"t.geojson holds no tiles of predict"):
            read_tiles_geojson(folder / "attention" / "t.geojson", "t", SIZE)


AREA = {"name": "tumour", "rings": [[100, 100, 300, 100, 300, 300, 100, 300, 100, 100]]}


def test_a_drawing_is_read_back_as_annotations(pages: WorklistPages, folder: Path, tmp_path: Path) -> None:
    assert loaded(pages, "slides/s/drawing.json") == {"version": "", "areas": []}
    hole = [150, 150, 250, 150, 250, 250, 150, 250, 150, 150]
    drawn = [{"name": "tumour", "rings": [*AREA["rings"], hole]}, {**AREA, "name": "exclude"}]
    first = pages.post("slides/s/drawing", {"version": "", "areas": drawn})
    assert first is not None
    path = find_annotations(folder / "annotations", "s", "s.svs")
    assert path is not None
    with open_slide(tmp_path / "slides" / "s.svs") as slide:
        areas = read_annotations(path, slide.bounds)
    assert [(area.name, area.polygon.area) for area in areas] == [("tumour", 30_000), ("exclude", 40_000)]
    assert AnnotationConfig().role_of("exclude") == "exclude"
    again = pages.post("slides/s/drawing", {**first})  # what was read is stored as it was
    assert again == first
    assert pages.post("slides/s/drawing", {"version": first["version"], "areas": []})["version"] == ""  # type: ignore[index]
    assert not path.exists()


def test_a_drawing_that_somebody_else_changed_is_not_replaced(pages: WorklistPages, folder: Path) -> None:
    pages.post("slides/s/drawing", {"version": "", "areas": [AREA]})
    before = (folder / "annotations" / "s.geojson").read_bytes()
    for version in ("", "x", None):
        with pytest.raises(InputError, match="Somebody else changed"):
            pages.post("slides/s/drawing", {"version": version, "areas": []})
    assert (folder / "annotations" / "s.geojson").read_bytes() == before


def test_an_area_is_made_valid_and_cut_at_the_slide(pages: WorklistPages) -> None:
    crossing = {"name": "x", "rings": [[0, 0, 100, 100, 100, 0, 0, 100, 0, 0]]}
    beyond = {"name": "y", "rings": [[-50, -50, 50, -50, 50, 50, -50, 50, -50, -50]]}
    found = pages.post("slides/s/drawing", {"version": "", "areas": [crossing, beyond]})
    assert found is not None
    shapes = [shapely.Polygon(np.reshape(area["rings"][0], (-1, 2))) for area in found["areas"]]
    assert all(shape.is_valid for shape in shapes)
    assert sorted(shape.area for shape in shapes) == [2500, 2500, 2500]


@pytest.mark.parametrize(
    ("areas", "words"),
    [
        (None, "can't be stored"),
        ([{"name": "x"}], "can't be stored"),
        ([{"name": "x", "rings": []}], "can't be stored"),
        ([{"name": "x", "rings": [[1, 2, 3]]}], "can't be stored"),
        ([{"name": "x", "rings": [[1, 1, 2, 2]]}], "can't be stored"),
        ([{"name": "x", "rings": [["a", "b", "c", "d", "e", "f"]]}], "can't be stored"),
        ([{"name": "x", "rings": [[0, 0, float("nan"), 0, 5, 5]]}], "can't be stored"),
        ([{"name": "x", "rings": [[-9, -9, -5, -9, -5, -5]]}], "can't be stored"),
        ([{"name": " ", "rings": AREA["rings"]}], "needs a class"),
        ([{"name": "a\x1b", "rings": AREA["rings"]}], "needs a class"),
        ([{"name": "x" * 101, "rings": AREA["rings"]}], "needs a class"),
        ([{"name": "x", "rings": [[0.5] * 40_002]}], "at most 20,000 corners"),
    ],
)  # fmt: skip
def test_a_drawing_of_nothing_is_refused(pages: WorklistPages, folder: Path, areas: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        pages.post("slides/s/drawing", {"version": "", "areas": areas})
    assert not (folder / "annotations" / "s.geojson").exists()


def test_why_a_slide_can_not_be_opened(pages: WorklistPages, folder: Path, tmp_path: Path) -> None:
    for name in ("", "viewer.js", "viewer.css", "openseadragon.min.js", "case.js", "drawing.js"):
        assert (
            pages.get(f"slides/{quote('a sound')}/{name}", {}) is not None
        )  # the page is there all the same
    with pytest.raises(SlideError, match="with --slides to zoom"):
        WorklistPages(Worklist(folder, folder), None).get("slides/s/info.json", {})
    with pytest.raises(SlideError, match="doesn't list it"):
        pages.get(f"slides/{quote('a sound')}/info.json", {})
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(SlideError, match=r"s\.svs"):
        WorklistPages(Worklist(folder, folder), tmp_path / "elsewhere").get("slides/s/info.json", {})
    table = folder / "slides.csv"
    table.write_text(table.read_text().replace(str(SIZE[0]), "999"))
    with pytest.raises(SlideError, match="1024 × 768 px, the one that was predicted 999 × 768"):
        pages.get("slides/s/info.json", {})
    table.unlink()
    with pytest.raises(SlideError, match="isn't known"):
        pages.get("slides/s/info.json", {})
    (folder / "thumbnails").mkdir()
    (folder / "thumbnails" / "s.jpg").write_bytes(b"picture")
    assert pages.get("slides/s/thumbnail.jpg", {}) == (b"picture", "image/jpeg")
    assert pages.get(f"slides/{quote('a sound')}/thumbnail.jpg", {}) is None


def test_slides_are_kept_open_but_not_many_and_none_in_use_is_closed(
    pages: WorklistPages, folder: Path, tmp_path: Path
) -> None:
    names = [f"n{i}" for i in range(7)]
    write_answers(folder, [answer(name) for name in (*names, "s")])
    table = (folder / "slides.csv").read_text().splitlines()
    rows = [table[1].replace("s,s.svs", f"{name},{name}.svs", 1) for name in names]
    (folder / "slides.csv").write_text("\n".join([*table, *rows]) + "\n")
    for name in names:
        os.link(tmp_path / "slides" / "s.svs", tmp_path / "slides" / f"{name}.svs")
    with pages._open("s") as held:
        threads = [
            threading.Thread(target=pages.get, args=(f"slides/{name}/slide/10/0_0.jpg", {})) for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(pages._opened) <= 4
        assert held in pages._opened.values()
        assert held.slide.read_region(0, 0, 0, 5, 5).shape == (5, 5, 3)
