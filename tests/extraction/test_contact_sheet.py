"""The contact sheet: every slide of the ledgers, the most severe first, safe to open and to pass on."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from wsi_ncmi.core.errors import InputError, JobStoppedError
from wsi_ncmi.extraction.contact_sheet import contact_cards, write_contact_sheet
from wsi_ncmi.extraction.ledger import Journal, LedgerRow, write_ledger

ROWS = (
    LedgerRow("fine", "fine.svs", "done", "", 1200, 0, 9.5, "openslide", 0.25, "vendor"),
    LedgerRow("lost", "lost.svs", "failed", "its header is damaged; copy it again"),
    LedgerRow("empty", "empty.svs", "done", "no tissue found", 0, 0, 1.0, "openslide", 0.5, "tiff"),
    LedgerRow("inked", "inked.svs", "done", "30 of 100 tiles were dropped", 70, 0, 1.0, "openslide", 0.5, "tiff", 30),
    LedgerRow("loose", "loose.svs", "done", "the threshold was loosened", 90, 1, 1.0, "openslide", 0.5, "tiff"),
)  # fmt: skip


class Page(HTMLParser):
    """Elements of a page as (tag, attributes), and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.found if name == tag]


def sheet(
    out: Path, rows: tuple[LedgerRow, ...] = ROWS, pictures: tuple[str, ...] = ("fine", "inked")
) -> Page:
    out.mkdir(parents=True, exist_ok=True)
    (out / "thumbnails").mkdir(exist_ok=True)
    for name in pictures:
        (out / "thumbnails" / f"{name}.jpg").write_bytes(b"jpg")
    write_ledger(rows, out / "ledger.csv")
    return Page(write_contact_sheet(out).read_text(encoding="utf-8"))


def test_every_slide_is_there_the_most_severe_first(tmp_path: Path) -> None:
    page = sheet(tmp_path)
    cards = page.all("article")
    assert [card["data-id"] for card in cards] == ["lost", "empty", "inked", "loose", "fine"]
    assert [card["data-severity"] for card in cards] == ["3", "2", "2", "1", "0"]
    assert "5 slides, 1,360 tiles" in page.text
    for words in (
        "its header is damaged",
        "no tissue found",
        "30 dropped",
        "0.25 µm per pixel (vendor)",
        "no thumbnail",
    ):
        assert words in page.text


def test_slides_with_kept_artefacts_are_not_fine(tmp_path: Path) -> None:
    rows = tuple(
        LedgerRow(kind, f"{kind}.svs", "done", "", 100, artifacts_found=found, **{kind: found})
        for kind, found in (("pen", 3), ("fold", 1), ("border", 21), ("blur", 60))
    )
    page = sheet(tmp_path, (*rows, ROWS[0], ROWS[3]), ())
    cards = {card["data-id"]: card for card in page.all("article")}
    assert {name: cards[name]["data-severity"] for name in cards} == {
        "pen": "1", "fold": "1", "border": "2", "blur": "2", "inked": "2", "fine": "0",
    }  # fmt: skip
    assert cards["inked"]["data-artefacts"] == "30"  # of an earlier version: dropped ones alone
    assert cards["blur"]["data-kinds"] == "blur"
    assert "Slides with artefacts, kept or dropped: pen 1, fold 1, border 1, blur 1." in page.text
    assert "in 60 tiles: blur 60" in page.text
    assert {"pen", "fold", "border", "blur"} < {option["value"] for option in page.all("option")}


def test_pictures_are_linked_lazily_with_words_for_those_who_do_not_see(tmp_path: Path) -> None:
    page = sheet(tmp_path)
    images = page.all("img")
    assert [image["src"] for image in images] == ["thumbnails/inked.jpg", "thumbnails/fine.jpg"]
    for image in images:
        assert image["loading"] == "lazy"
        assert (tmp_path / image["src"]).is_file()
    assert images[0]["alt"] == (
        "Thumbnail of slide inked with the outline of its tissue: 70 tiles kept, 30 dropped for artefacts"
    )


@pytest.mark.parametrize("name", ["a#b?c=%41&d", "<script>alert(1)</script>", 'x" onerror="y', "größe 1"])
def test_ids_are_text_and_their_links_reach_the_file(tmp_path: Path, name: str) -> None:
    name = name.replace("/", "_")
    page = sheet(tmp_path, (LedgerRow(name, "x.svs", "done", tiles=3),), (name,))
    assert len(page.all("script")) == 1
    (card,) = page.all("article")
    (image,) = page.all("img")
    assert card["data-id"] == name
    assert not {"onerror", "onload"} & set(image)
    assert "?" not in image["src"]
    assert "#" not in image["src"]
    assert (tmp_path / unquote(image["src"])).is_file()


def test_folders_of_this_machine_stay_out(tmp_path: Path) -> None:
    reason = "/home/dr_jones/wsi/a.svs can't be read (see C:\\Users\\jones\\x.log, mpp 1/2, and/or a.tif)"
    page = sheet(tmp_path, (LedgerRow("a", "a.svs", "failed", reason),), ())
    assert "jones" not in page.text
    assert "…/a.svs can't be read (see …/x.log, mpp 1/2, and/or a.tif)" in page.text
    assert str(tmp_path) not in (tmp_path / "contact_sheet.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere_and_runs_its_own_script_only(tmp_path: Path) -> None:
    import base64
    import hashlib

    page = sheet(tmp_path)
    html = (tmp_path / "contact_sheet.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|//[a-z]", html)
    policy = next(
        meta["content"] for meta in page.all("meta") if "content" in meta and "default-src" in meta["content"]
    )
    script = re.search(r"<script>(.*?)</script>", html, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_a_resumed_job_keeps_what_was_said_at_first(tmp_path: Path) -> None:
    told = ROWS[3]
    with Journal(tmp_path / "ledger.jsonl") as journal:
        journal.append(told)
    again = LedgerRow("inked", "inked.svs", "skipped", "already extracted; same content as fine", 70, 0, 0.1,
                      "openslide", 0.5, "tiff", 30)  # fmt: skip
    page = sheet(tmp_path, (again, ROWS[0]), ())
    assert "30 of 100 tiles were dropped" in page.text
    assert "already extracted" not in page.text
    other = LedgerRow("fine", "fine.svs", "skipped", "already extracted; same content as inked", 1200)
    assert "same content as inked" in sheet(tmp_path, (other,), ()).text


def test_parts_of_a_job_array_meet_on_one_sheet(tmp_path: Path) -> None:
    write_ledger(ROWS[:2], tmp_path / "ledger_1_of_2.csv")
    write_ledger(ROWS[2:], tmp_path / "ledger_2_of_2.csv")
    assert len(contact_cards(tmp_path)) == 5


def test_a_further_set_has_a_sheet_of_its_own(tmp_path: Path) -> None:
    write_ledger(ROWS[:1], tmp_path / "ledger.csv")
    write_ledger(ROWS[1:], tmp_path / "ledger@1um.csv")
    (tmp_path / "thumbnails@1um").mkdir()
    (tmp_path / "thumbnails@1um" / "inked.jpg").touch()
    page = Page(write_contact_sheet(tmp_path, "1um").read_text(encoding="utf-8"))
    assert len(page.all("article")) == 4
    assert [image["src"] for image in page.all("img")] == ["thumbnails%401um/inked.jpg"]
    assert len(contact_cards(tmp_path)) == 1


def test_two_thousand_slides_make_a_page_of_a_few_megabytes(tmp_path: Path) -> None:
    rows = tuple(LedgerRow(f"slide_{i:04}", f"{i}.svs", "done", "", i) for i in range(2000))
    page = sheet(tmp_path, rows, ())
    assert len(page.all("article")) == 2000
    assert (tmp_path / "contact_sheet.html").stat().st_size < 4_000_000


def test_faults_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ledger.csv").write_text("slide_id\na\n")
    with pytest.raises(InputError, match="is no ledger"):
        write_contact_sheet(tmp_path)
    assert not (tmp_path / "contact_sheet.html").exists()
    with pytest.raises(JobStoppedError, match=r"contact_sheet\.html"):
        write_contact_sheet(tmp_path / "gone", cards=())


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "No slides yet" in Page(write_contact_sheet(tmp_path).read_text(encoding="utf-8")).text


def test_a_journal_of_other_sets_is_not_mixed_in(tmp_path: Path) -> None:
    line = {"slide_id": "a", "path": "a.svs", "status": "done", "reason": "of the other set", "tiles": 3,
            "failed_reads": 0, "seconds": 1.0, "reader": "", "mpp": None, "mpp_source": "",
            "artifact_tiles": 0, "features_set": "1um"}  # fmt: skip
    (tmp_path / "ledger.jsonl").write_text(json.dumps(line) + "\n")
    page = sheet(tmp_path, (LedgerRow("a", "a.svs", "skipped", "already extracted", 3),), ())
    assert "of the other set" not in page.text
    assert "done before" in page.text
