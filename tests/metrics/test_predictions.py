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
        ("", "is empty; it needs a header"),
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


def test_tables_as_excel_writes_them(predictions):
    path = predictions("")
    text = "slide_id;case_id;label;p_x;p_y\r\n007;p;x;0,93;0,07\r\nb;q;y;1e-1;0.9\r\n"
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(text.encode(encoding))
        df = read_predictions(path)
        assert df["slide_id"].tolist() == ["007", "b"]
        assert df["p_x"].tolist() == [0.93, 0.1]


@pytest.mark.parametrize(
    ("p", "accepted"),
    [
        ("0.33,0.33,0.33", True),
        ("0.67,0.17,0.17", True),
        ("0.333,0.333,0.333", True),
        ("0.34,0.34,0.34", False),  # rounding explains 0.015, not 0.02
        ("0.335,0.334,0.333", False),  # three decimals explain 0.0015, not 0.002
        ("0.34,0.34,0.3401", False),
        ("0.3,0.3,0.3", False),
        ("0.98,0.01,-0.0", True),
        ("1.01,0.0,-0.01", False),
    ],
)
def test_rounded_probabilities_are_scaled_within_what_rounding_explains(predictions, p, accepted):
    path = predictions(f"slide_id,case_id,label,p_x,p_y,p_z\na,p,x,{p}\nb,q,y,0.2,0.3,0.5\n")
    if accepted:
        df = read_predictions(path)
        assert df[["p_x", "p_y", "p_z"]].to_numpy().sum(axis=1) == pytest.approx(1, abs=1e-3)
        assert df.iloc[1]["p_y"] == 0.3
    else:
        with pytest.raises(InputError, match="must sum to 1"):
            read_predictions(path)


def test_scaling_is_told(predictions):
    df = read_predictions(predictions("slide_id,case_id,label,p_x,p_y,p_z\na,p,x,0.33,0.33,0.33\n"))
    assert df.attrs["notes"] == ["Rounded probabilities of 1 row were scaled to sum to 1."]
    assert df["p_x"].tolist() == pytest.approx([1 / 3], abs=1e-15)


@pytest.mark.parametrize("text", ["NA", "#N/A", "unknown", "-"])
def test_no_value_is_no_class_unless_a_class_is_called_so(predictions, text):
    with pytest.raises(InputError, match=f"'label' is empty .{text!r} means no value"):
        read_predictions(predictions(f"slide_id,case_id,label,p_x,p_y\na,p,{text},0.2,0.8\n"))
    df = read_predictions(predictions(f"slide_id,case_id,label,p_x,p_{text}\na,p,{text},0.2,0.8\n"))
    assert df["prediction"].tolist() == [text]


def test_labels_join_in_any_form_and_with_or_without_extension(predictions):
    text = "slide_id,p_x,p_y\na.svs,0.2,0.8\nTumo\u0308r,0.2,0.8\n"
    labels = [Row("a", "p", "y"), Row("Tum\u00f6r", "q", "x")]
    assert read_predictions(predictions(text), labels=labels)["label"].tolist() == ["y", "x"]
    two = [Row("a.svs", "p", "y"), Row("a.tif", "p", "x")]
    assert read_predictions(predictions("slide_id,p_x,p_y\na.tif,1,0\n"), labels=two)["label"].tolist() == [
        "x"
    ]
    with pytest.raises(InputError, match=r"could have the label of 'a\.svs' or 'a\.tif'"):
        read_predictions(predictions("slide_id,p_x,p_y\na,1,0\n"), labels=two)
    with pytest.raises(InputError, match="'A-1' and 'a_01' differ only"):
        read_predictions(predictions("slide_id,p_x,p_y\nA-1,1,0\n"), labels=[Row("a_01", "p", "x")])
