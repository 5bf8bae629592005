from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ncmi.metrics import Estimate, evaluate_predictions
from wsi_ncmi.reporting import cohort_flow, render_summary, write_summary
from wsi_ncmi.reporting.formatting import count, interval, number, without_folders
from wsi_ncmi.reporting.slides import best_and_worst
from wsi_ncmi.reporting.tables import cell, confusion_tables


@dataclass(frozen=True)
class Row:
    slide_id: str
    reason: str


LEDGER = pd.DataFrame(
    [
        ("a", "done", "", 10),
        ("b", "done", "no tissue", 0),
        ("c", "failed", "no reader can open /x/y/c.svs: truncated", 0),
        ("d", "failed", "no reader can open /x/y/d.svs: truncated", 0),
        ("e", "skipped", "already extracted", 7),
        ("f", "done", "", 3),
    ],
    columns=["slide_id", "status", "reason", "tiles"],
)


def test_flow_adds_up():
    unmatched = [
        Row("b", "no tissue: the features hold no tile"),
        Row("c", "label without features"),
        Row("f", "features without label"),
        Row("z", "label without features"),
    ]
    steps = cohort_flow(used_slides=2, used_patients=1, ledger=LEDGER, unmatched=unmatched)
    assert [step.slides for step in steps] == [6, 4, 2]
    assert steps[0].beside == {"labels without a slide": 1}
    assert steps[1].lost == {"no reader can open the slide: truncated": 2}
    assert steps[2].lost == {"features without label": 1, "no tissue: the features hold no tile": 1}
    assert steps[2].patients == 1
    for before, after in pairwise(steps):
        assert before.slides - sum(after.lost.values()) == after.slides


def test_flow_from_ready_features():
    steps = cohort_flow(
        used_slides=8, unmatched=[Row("x", "features without label"), Row("y", "label without features")]
    )
    assert [step.slides for step in steps] == [9, 8]
    assert steps[1].lost == {"features without label": 1}
    assert steps[0].beside == {"labels without a slide": 1}


def test_flow_groups_many_reasons():
    ledger = pd.DataFrame(
        {
            "slide_id": [f"s{k}" for k in range(9)],
            "status": "failed",
            "reason": [f"reason {k}" for k in range(9)],
            "tiles": 0,
        }
    )
    lost = cohort_flow(used_slides=0, ledger=ledger)[1].lost
    assert len(lost) == 7
    assert sum(lost.values()) == 9
    assert lost["other reasons"] == 3


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("/data/slides/a b.svs", "…/a b.svs"),
        (Path("/data/slides"), "…/slides"),
        ("camelyon17:/data/labels/x.csv", "camelyon17:…/x.csv"),
        ("can't read /mnt/a/b.svs (truncated); use '/mnt/c/d'", "can't read …/b.svs (truncated); use '…/d'"),
        (r"C:\slides\x\a.svs", "…/a.svs"),
        ("centres 0–2 / 3–4, and/or 1/2", "centres 0–2 / 3–4, and/or 1/2"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("configs/demo.yaml", "configs/demo.yaml"),
        ({"a": ["/x/y", 3, None]}, {"a": ["…/y", 3, None]}),
        (0.5, 0.5),
    ],
)
def test_folders_are_left_out(given_text, expected):
    assert without_folders(given_text) == expected


@given(
    # "." and ".." are no names: a path that ends in one is shortened to the name before it.
    st.lists(
        st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True).filter(lambda part: part.strip(".")),
        min_size=2,
        max_size=5,
    ),
    st.sampled_from(["{}", "read {} failed", "x={}", "'{}'", "({})"]),
)
def test_no_folder_survives_in_a_sentence(parts, sentence):
    text = without_folders(sentence.format("/secret-home/" + "/".join(parts)))
    assert "secret-home" not in text
    assert parts[-1] in text


def test_best_and_worst_slides():
    frame = pd.DataFrame(
        [
            ("w1", "p", 0, 0, "a", "b", 0.1, 0.9), ("w1", "p", 0, 1, "a", "b", 0.2, 0.8),
            ("w2", "p", 0, 0, "b", "a", 0.7, 0.3), ("w2", "p", 0, 1, "b", "a", 0.6, 0.4),
            ("half", "q", 1, 0, "a", "b", 0.4, 0.6), ("half", "q", 1, 1, "a", "a", 0.9, 0.1),
            ("r1", "q", 1, 0, "b", "b", 0.05, 0.95), ("r1", "q", 1, 1, "b", "b", 0.05, 0.95),
            ("r2", "q", 1, 0, "a", "a", 0.6, 0.4), ("r2", "q", 1, 1, "a", "a", 0.8, 0.2),
        ],
        columns=["slide_id", "case_id", "fold", "seed", "label", "prediction", "p_a", "p_b"],
    )  # fmt: skip
    evaluation = evaluate_predictions(frame, ("a", "b"), resamples=20)
    ledger = pd.DataFrame({"slide_id": ["w1", "r1"], "tiles": [1234, np.nan]})
    worst, best, n_wrong = best_and_worst(frame, evaluation, ledger=ledger)
    assert [row.slide_id for row in worst] == ["w1", "w2"]
    assert [row.slide_id for row in best] == ["r2", "r1"]  # a class in turn; "half" is neither
    assert n_wrong == 2
    first = worst[0]
    assert (first.prediction, first.wrong, first.runs, first.tiles, first.folds) == ("b", 2, 2, "1,234", "0")
    assert first.p_prediction == pytest.approx(0.85)
    assert first.p_label == pytest.approx(0.15)
    assert best_and_worst(frame, evaluation, ledger=ledger, limit_worst=1, limit_best=0)[:2] == ([first], [])


def test_confusion_table(make):
    frame = make.predictions(seeds=1)
    (table,) = confusion_tables({"ncmi": evaluate_predictions(frame, ("ADI", "TUM", "NORM"), resamples=20)})
    expected = pd.crosstab(frame["label"], frame["prediction"]).reindex(
        index=table.classes, columns=table.classes, fill_value=0
    )
    assert table.counts == [[str(value) for value in row] for row in expected.to_numpy()]
    np.testing.assert_allclose(table.shares, expected.div(expected.sum(axis=1), axis=0))
    assert table.totals == ["16", "16", "16"]


def test_numbers_as_text():
    assert number(-0.12345) == "−0.123"
    assert number(float("nan")) == "–"
    assert interval(Estimate(0.5, 0.41, 0.62)) == "0.410–0.620"
    assert interval(Estimate(0.0, -0.1, 0.2)) == "−0.100 to 0.200"
    assert interval(Estimate(0.5)) == ""
    assert count(1, "slide") == "1 slide"
    assert count(1234, "slide") == "1,234 slides"
    assert cell(Estimate(0.5, 0.4, 0.6)).position == (0.5, 0.4, 0.6)
    assert cell(Estimate(-0.1, -0.2, 0.1)).position is None
    assert cell(Estimate(float("nan"), reason="why")).reason == "why"


def test_summary(make, tmp_path):
    data = make.report_input(
        title="A | <b>title</b>", warnings=("see /data/x/y.csv",), provenance={"software": "wsi-ncmi 1"}
    )
    text = render_summary(data)
    estimate = data.headline.metrics["macro_f1"]
    assert text.startswith("# A \\| &lt;b&gt;title&lt;/b&gt;\n")
    assert (
        f"**Macro-F1 (ncmi): {estimate.value:.3f}** (95 % CI {estimate.ci_low:.3f}–{estimate.ci_high:.3f})"
        in text
    )
    assert "> see …/y.csv" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    # Metrics, classes and centres, reporting items: each table has its own number of columns.
    assert {line.replace("\\|", "").count("|") for line in rows} == {3, 4, 7}
    write_summary(data, tmp_path / "summary.md")
    assert (tmp_path / "summary.md").read_text() == text
