from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.metrics import check_predictions, classes_of, read_predictions

HEADER = "slide_id,case_id,fold,seed,label,prediction,p_x,p_y"
GOOD = f"{HEADER}\n007,01,0,0,x,x,0.9,0.1\nb,02,1,0,y,x,0.6,0.4\n"


@dataclass
class Row:
    slide_id: str
    case_id: str
    label: str
    centre: str = ""


@pytest.fixture
def predictions(tmp_path):
    def write(text):
        path = tmp_path / "predictions.csv"
        path.write_text(text)
        return path

    return write


def test_contract_table(predictions):
    df = read_predictions(predictions(GOOD))
    assert df["slide_id"].tolist() == ["007", "b"]
    assert df["case_id"].tolist() == ["01", "02"]
    assert df[["fold", "seed"]].dtypes.tolist() == ["int64", "int64"]
    assert df["p_x"].tolist() == [0.9, 0.6]
    assert classes_of(df) == ("x", "y")


def test_what_may_be_left_out(predictions):
    df = read_predictions(predictions("slide_id,case_id,label,p_x,p_y\na,p,x,0.2,0.8\n"))
    assert df["prediction"].tolist() == ["y"]
    assert (df["fold"].tolist(), df["seed"].tolist()) == ([0], [0])


def test_labels_join_and_override(predictions):
    path = predictions("slide_id,label,p_x,p_y\na,y,0.2,0.8\nb,x,0.2,0.8\n")
    df = read_predictions(path, labels=[Row("b", "q", "y", "1"), Row("a", "p", "x", "0"), Row("c", "r", "x")])
    assert df["label"].tolist() == ["x", "y"]
    assert df["case_id"].tolist() == ["p", "q"]
    assert df["centre"].tolist() == ["0", "1"]
    with pytest.raises(InputError, match="slide 'b' and 0 others have no label"):
        read_predictions(path, labels=[Row("a", "p", "x")])


def test_patients_are_not_assumed(predictions):
    path = predictions("slide_id,label,p_x,p_y\na,x,0.2,0.8\n")
    with pytest.raises(InputError, match=r"lacks the column 'case_id'.*--group slide_id"):
        read_predictions(path)
    assert read_predictions(path, group="slide_id")["case_id"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CSV"),
        ("a,b\n1,2\n", "lacks the column 'slide_id'"),
        ("slide_id,case_id,p_x,p_y\na,p,1,0\n", "lacks the column 'label'"),
        ("slide_id,case_id,label,prediction\na,p,x,x\n", "p_<class>"),
        (f"{HEADER}\n", "no rows"),
        (f"{HEADER}\na,p,0,0,x,x,nan,1\n", r"row 2 \(slide 'a'\): 'p_x' is 'nan', not a finite number"),
        (f"{HEADER}\na,p,0,0,x,x,,1\n", "'p_x' is ''"),
        (f"{HEADER}\na,p,0,0,x,x,high,1\n", "'p_x' is 'high'"),
        (f"{HEADER}\na,p,0,0,x,x,0.5,0.6\n", "sum 1.1"),
        (f"{HEADER}\na,p,0,0,x,x,-0.5,1.5\n", "must lie in 0–1"),
        (f"{HEADER}\na,p,0,0,z,x,0.5,0.5\n", "label 'z' is not among the classes"),
        (f"{HEADER}\na,p,0,0,x,z,0.5,0.5\n", "prediction 'z' is not among the classes"),
        (f"{HEADER}\na,p,0,0,,x,0.5,0.5\n", "the 'label' is empty"),
        (f"{HEADER}\na,,0,0,x,x,0.5,0.5\n", "the 'case_id' is empty"),
        (f"{HEADER}\na,p,k,0,x,x,0.5,0.5\n", "'fold' is 'k'"),
        (f"{HEADER}\na,p,0,0,x,x,0.5,0.5\na,p,0,0,x,x,0.5,0.5\n", r"row 3 .* twice in this fold and seed"),
        (f"{HEADER}\na,p,0,0,x,x,0.5,0.5\na,q,0,1,x,x,0.5,0.5\n", "belongs to two patients"),
        (f"{HEADER}\na,p,0,0,x,x,0.5,0.5\na,p,0,1,y,x,0.5,0.5\n", "has two labels"),
        (f"{HEADER}\na,p,0.5,0,x,x,0.5,0.5\n", "whole number"),
    ],
)
def test_faulty_tables(predictions, text, message):
    with pytest.raises(InputError, match=message):
        read_predictions(predictions(text))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        read_predictions(tmp_path / "none.csv")


def test_checking_copies(predictions):
    df = pd.read_csv(predictions(GOOD), dtype={"slide_id": str, "case_id": str})
    before = df.copy()
    check_predictions(df, ("x", "y"))
    pd.testing.assert_frame_equal(df, before)
    with pytest.raises(InputError, match="lacks the column 'p_z'"):
        check_predictions(df, ("x", "y", "z"))
