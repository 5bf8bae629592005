"""The table of patients that ``predict`` takes."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction.outputs import case_notes, read_cases
from wsi_ncmi.prediction.slide_prediction import SlidePrediction
from wsi_ncmi.slides import slide_key


def test_slides_find_their_patient_in_any_form(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("slide_id;case_id\nTumör.svs;p1\na;p2\n", encoding="utf-16")
    cases = read_cases(path)
    given = (unicodedata.normalize("NFD", "Tumör"), "a.svs")  # ``a.tif`` may lie beside it
    assert [cases[slide_key(slide_id)] for slide_id in given] == ["p1", "p2"]


@pytest.mark.parametrize("row", ["NA;p1", "a;#N/A", ";p1", "a;unknown"])
def test_no_slide_and_no_patient_are_refused(tmp_path: Path, row: str) -> None:
    path = tmp_path / "cases.csv"
    path.write_text(f"slide_id;case_id\nb;p0\n{row}\n")
    with pytest.raises(InputError, match="row 3: slide_id and case_id must both be given"):
        read_cases(path)


def test_slides_without_patient_and_patients_spelled_alike_are_told() -> None:
    predictions = [SlidePrediction("s_1", case_id="P1"), SlidePrediction("S-02"), SlidePrediction("x")]
    notes = case_notes(predictions, {"s_1": "P1", "s_2": "p_01"})
    assert notes[0].startswith("The patients 'P1' and 'p_01' differ only in case")
    assert notes[1].startswith(
        "2 slides not in the table of patients, such as 'S-02', but 's_2' is, and these"
    )
    assert case_notes(predictions, {}) == ()
