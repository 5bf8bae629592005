"""Texts of cells: the reading of "no value", and spellings of one thing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_ncmi.core.values import is_empty, parse_number, spelling_key, suspects, suspects_between, tidy

NO_VALUES = [
    "", " ", "NA", "na", "N/A", "n.a.", "<NA>", "#N/A", "#NV", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!",
    "#BEZUG!", "Err:502", "None", "null", "NULL", "NaN", "nan", "NaT", "-", "--", "–", "'--", "_", ".", "?", "??", "…",
    "unknown", "Unknown", "Not Reported", "not reported", "Not Available", "[Not Available]", "[Not Applicable]",
    "(blank)", "\\N", "N / A", "n.d.", "n. a.", "-nan", "UNK", "TBD", "N/D", "not determined",
    "\u00a0NA\u200b", "ＮＡ", "not allowed to collect",
]  # fmt: skip
VALUES = ["0", "1", "N", "A", "nano", "LUAD", "+", "0/1", "pN0(i+)", "other", "empty", "blank", "normal", "negative", "Nan Ying", "#7", "S12#7",
          "no", "n", "-1", "unknown primary", "nat-1", "T1?", "C-", "#1",
          "ND", "N1a", "unk-1", "n.d.-3"]  # fmt: skip


@pytest.mark.parametrize("text", NO_VALUES)
def test_texts_that_mean_no_value(text: str) -> None:
    assert is_empty(text)


@pytest.mark.parametrize("text", VALUES)
def test_texts_that_are_values(text: str) -> None:
    assert not is_empty(text)


@given(st.text(max_size=12))
@settings(max_examples=60, derandomize=True)
def test_tidying_twice_changes_nothing_and_forms_of_unicode_agree(text: str) -> None:
    assert tidy(tidy(text)) == tidy(text)
    assert tidy(unicodedata.normalize("NFD", text)) == tidy(text)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("LUAD", "luad"), ("non small", "non  small"), ("MSI-H", "MSIH"), ("case_1", "case-1"), ("p007", "p7"),
        ("007", "7.0"), ("S１２", "S12"), ("LU\u200bAD", "LUAD"), ("Tumör", unicodedata.normalize("NFD", "Tumör")),
        ("P 1", "P1"), ("a_01_2", "A-1-02"), ("STRASSE", "straße"), ("x\u2011y", "x-y"),
    ],
)  # fmt: skip
def test_spellings_of_one_thing(a: str, b: str) -> None:
    assert spelling_key(a) == spelling_key(b)
    assert suspects([a, "other", b]) == [(a, b)]
    assert suspects_between([a], [b, "other"]) == {a: b}


@pytest.mark.parametrize(
    ("a", "b"),
    [("1-12", "11-2"), ("S1_1", "S11"), ("HER2+", "HER2-"), ("T1", "T10"), ("a", "b"), ("100", "1")],
)
def test_different_things(a: str, b: str) -> None:
    assert not suspects([a, b])
    assert not suspects_between([a], [b])


def test_numbers_with_decimal_comma() -> None:
    assert parse_number("0,25") == parse_number(" 0.25 ") == 0.25
    assert parse_number("-,5") == -0.5
    assert all(number != number for number in map(parse_number, ("", "1.000,5", "a", "1,2,3")))
