"""Verdicts: appended, never lost or overwritten; and the agreement computed from them."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.prediction.answers import CLASSES
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.tables import read_table
from wsi_ncmi.prediction.verdicts import (
    Verdict,
    agreement,
    agreement_note,
    append_verdict,
    checked_entries,
    latest_verdicts,
    read_verdicts,
)

FIRST = Verdict("s 1", "", "tumour", "abstain", "disagree", "negative", 'says "no", clearly', "ÅB", "2026-01-01T00:00:00Z", "m", "d" * 64)  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "verdicts.csv"


def test_rows_are_added_and_the_latest_counts(table: Path) -> None:
    second = replace(FIRST, verdict="agree", label="tumour", comment="")
    other = replace(FIRST, slide_id="s 2")
    before = b""
    for verdict in (FIRST, other, second):
        append_verdict(table, verdict)
        assert table.read_bytes().startswith(before)
        before = table.read_bytes()
    assert read_verdicts(table) == (FIRST, other, second)
    assert latest_verdicts(read_verdicts(table)) == {"s 1": second, "s 2": other}


def _append_many(path: Path, name: str) -> None:
    for number in range(20):
        append_verdict(path, replace(FIRST, slide_id=f"{name} {number}", comment="x" * 300))


def test_viewers_that_share_the_file_lose_nothing(table: Path) -> None:
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=_append_many, args=(table, name)) for name in "abc"]
    for process in running:
        process.start()
    for process in running:
        process.join()
    found = [verdict.slide_id for verdict in read_verdicts(table)]
    assert sorted(found) == sorted(f"{name} {number}" for name in "abc" for number in range(20))


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_torn_row_spoils_no_other(table: Path, kept: int) -> None:
    append_verdict(table, FIRST)
    whole = table.read_bytes()
    append_verdict(table, replace(FIRST, slide_id="torn"))
    table.write_bytes(table.read_bytes()[: len(whole) + kept])
    append_verdict(table, replace(FIRST, slide_id="after"))
    assert [verdict.slide_id for verdict in read_verdicts(table)] == ["s 1", "after"]


def test_a_row_without_its_end_of_line_stays(table: Path) -> None:
    append_verdict(table, FIRST)
    table.write_bytes(table.read_bytes().rstrip(b"\n"))  # an editor
    append_verdict(table, replace(FIRST, slide_id="after"))
    assert [verdict.slide_id for verdict in read_verdicts(table)] == ["s 1", "after"]


@pytest.mark.parametrize("fault", ["nothing", "a part"])
def test_a_full_disk_leaves_no_part_of_a_row(
    table: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_verdict(table, FIRST)
    before = table.read_bytes()
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if fault == "nothing":
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:20])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        append_verdict(table, replace(FIRST, slide_id="lost"))
    assert table.read_bytes() == before


def test_a_table_of_other_columns_is_left_alone(table: Path) -> None:
    table.write_text("slide_id;verdict\ns;agree\n")
    with pytest.raises(InputError, match="other columns"):
        append_verdict(table, FIRST)
    assert table.read_text() == "slide_id;verdict\ns;agree\n"
    with pytest.raises(InputError, match="lacks the columns"):
        read_verdicts(table)


def test_an_unknown_verdict_in_the_file_is_told(table: Path) -> None:
    append_verdict(table, replace(FIRST, verdict="perhaps"))
    with pytest.raises(InputError, match="row 2, column 'verdict', value 'perhaps'"):
        read_verdicts(table)


ENTRIES = {"verdict": "disagree", "label": "negative", "comment": " two\nlines ", "initials": " AB "}


def test_what_a_page_sends_is_made_tidy() -> None:
    assert checked_entries(ENTRIES, "tumour", CLASSES) == ("disagree", "negative", "two lines", "AB")
    assert checked_entries({**ENTRIES, "verdict": "agree"}, "tumour", CLASSES)[1] == "tumour"
    assert checked_entries({**ENTRIES, "verdict": "unsure"}, "", CLASSES)[1] == ""
    assert checked_entries({**ENTRIES, "comment": "a\x1b[31m\u202eb"}, "tumour", CLASSES)[2] == r"a\x1b[31m\u202eb"  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "prediction", "words"),
    [
        ({"verdict": ""}, "tumour", "Choose"),
        ({"verdict": "AGREE"}, "tumour", "Choose"),
        ({"verdict": "agree"}, "", "no answer to agree"),
        ({"label": "tumour"}, "tumour", "'tumour' is none"),
        ({"label": "stroma"}, "tumour", "'stroma' is none"),
        ({"initials": " "}, "tumour", "initials"),
        ({"initials": "x" * 13}, "tumour", "initials"),
        ({"comment": "x" * 2001}, "tumour", "2001 letters"),
        ({"comment": ["x"]}, "tumour", "made of texts"),
        ({"verdict": None}, "tumour", "made of texts"),
    ],
)
def test_what_can_not_stand_in_the_table_is_refused(
    changes: dict[str, Any], prediction: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        checked_entries({**ENTRIES, **changes}, prediction, CLASSES)


def predictions(folder: Path) -> Path:
    path = folder / "predictions.csv"
    rows = ["slide_id,case_id,label,prediction,decision", "na,p1,,tumour,tumour", "b,p1,,tumour,abstain"]
    rows += ["c,p2,,negative,negative", "d,,,negative,negative", "e,,,,", "f,p3,,negative,negative"]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_agreement_of_the_latest_verdicts_on_these_answers(tmp_path: Path) -> None:
    def of(slide: str, verdict: str, prediction: str, label: str = "", who: str = "AB") -> Verdict:
        return replace(
            FIRST, slide_id=slide, verdict=verdict, prediction=prediction, label=label, initials=who
        )

    verdicts = [
        of("na", "disagree", "tumour", "negative"),
        of("na", "agree", "tumour", "tumour"),  # the latest counts
        of("b", "disagree", "tumour", "negative", "CD"),
        of("c", "agree", "tumour", "tumour"),  # of an earlier model's answer
        of("d", "unsure", "negative"),
        of("elsewhere", "agree", "tumour"),
        of("e", "unsure", ""),
    ]
    found = agreement(read_table(predictions(tmp_path)), verdicts, resamples=200, seed=0)
    counts = {name: found[name] for name in ("slides", "other_answer", "agree", "disagree", "unsure")}
    assert counts == {"slides": 5, "other_answer": 1, "agree": 1, "disagree": 1, "unsure": 1}
    assert found["agreement"]["value"] == 0.5
    assert found["disagreed"] == {"tumour": {"negative": 1}}
    shares = {name: (each["agreement"] or {}).get("value") for name, each in found["groups"].items()}
    assert shares == {
        "abstained": 0.0, "by AB": 1.0, "by CD": 0.0, "class negative": None, "class tumour": 0.5, "decided": 1.0,
    }  # fmt: skip
    note = agreement_note(found)
    assert "agreed with 1 of 2 answers, 50.0 %" in note
    assert "1 verdict unsure, 2 of 5 slides without one (1 judged when the answer was another)" in note


def test_the_interval_draws_patients(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    agrees = rng.random(12) < 0.6
    rows = [f"s{p}-{n},p{p},tumour,tumour" for p in range(12) for n in range(4)]
    (tmp_path / "p.csv").write_text("\n".join(["slide_id,case_id,prediction,decision", *rows]) + "\n")
    verdicts = [
        replace(FIRST, slide_id=f"s{p}-{n}", verdict="agree" if agrees[p] else "disagree")
        for p in range(12)
        for n in range(4)
    ]
    found = agreement(read_table(tmp_path / "p.csv"), verdicts, resamples=500, seed=0)["agreement"]
    draws = [agrees[rng.integers(0, 12, 12)].mean() for _ in range(2000)]  # whole patients, by hand
    assert found["value"] == agrees.mean()
    np.testing.assert_allclose(
        [found["ci_low"], found["ci_high"]], np.percentile(draws, [2.5, 97.5]), atol=0.09
    )


def test_no_verdict_on_these_answers(tmp_path: Path) -> None:
    found = agreement(read_table(predictions(tmp_path)), [FIRST], resamples=10, seed=0)
    assert found["agreement"] is None
    assert agreement_note(found).startswith("No verdict agrees or disagrees")
