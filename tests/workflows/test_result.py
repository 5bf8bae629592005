"""The headline that a job ends with, as lines and as numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsi_ncmi.workflows.result import headlines


def f1(
    value: float | None, low: float | None = None, high: float | None = None, reason: str = ""
) -> dict[str, object]:
    return {"value": value, "ci_low": low, "ci_high": high, "reason": reason}


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    return write(
        tmp_path / "metrics.json",
        {
            "loss": "ncmi",
            "macro_f1": f1(0.6982, 0.5141, 0.8829),
            "n_slides": 24,
            "n_patients": 18,
            "warnings": [],
        },
    )


def test_a_training_ends_with_its_macro_f1(metrics: Path) -> None:
    numbers, lines = headlines({"report": Path("r.html"), "metrics": metrics})
    assert lines == ("Macro-F1 (ncmi) 0.698 (95 % CI 0.514–0.883), 24 slides of 18 patients",)
    assert numbers == {
        "loss": "ncmi", "macro_f1": f1(0.6982, 0.5141, 0.8829), "n_slides": 24, "n_patients": 18,
        "losses": {"ncmi": f1(0.6982, 0.5141, 0.8829)}, "differences": [],
    }  # fmt: skip


def test_without_an_interval_the_reason_stands_there(tmp_path: Path) -> None:
    content = {"macro_f1": f1(1.0, reason="not informative"), "n_slides": 1, "n_patients": 1}
    numbers, lines = headlines({"metrics": write(tmp_path / "m.json", content)})
    assert lines == ("Macro-F1 1.000 (not informative), 1 slide of 1 patient",)
    assert numbers["loss"] is None
    undefined = write(tmp_path / "u.json", {"macro_f1": f1(None), "n_slides": 0, "n_patients": 0})
    assert headlines({"metrics": undefined})[1] == ("Macro-F1 –, 0 slides of 0 patients",)


def test_a_comparison_ends_with_the_paired_difference(tmp_path: Path) -> None:
    both = {
        name: {"macro_f1": f1(value, 0.4, 0.9), "n_slides": 5, "n_patients": 5}
        for name, value in (("ncmi", 0.7), ("ce", 0.72))
    }
    files = {
        "metrics": write(tmp_path / "m.json", {"loss": "ncmi", **both["ncmi"], "losses": both}),
        "differences": write(
            tmp_path / "c.json",
            {
                "differences": [
                    {
                        "a": "ncmi",
                        "b": "ce",
                        "difference": -0.02,
                        "ci_low": -0.1,
                        "ci_high": 0.05,
                        "p_value": 0.31,
                    }
                ]
            },
        ),
    }
    numbers, lines = headlines(files)
    assert lines[1:] == (
        "Macro-F1 (ce) 0.720 (95 % CI 0.400–0.900), 5 slides of 5 patients",
        "Macro-F1 of ncmi minus ce: −0.020 (95 % CI −0.100 to 0.050), p 0.310",
    )
    assert (set(numbers["losses"]), numbers["differences"][0]["difference"]) == ({"ncmi", "ce"}, -0.02)


def test_variants_are_told_by_name_and_a_sweep_by_its_table(tmp_path: Path, metrics: Path) -> None:
    numbers, lines = headlines({"a.metrics": metrics, "a.report": Path("r"), "b.metrics": metrics})
    assert [line[:11] for line in lines] == ["a: Macro-F1", "b: Macro-F1"]
    assert numbers["b"]["macro_f1"]["value"] == 0.6982
    (tmp_path / "grid.md").write_text("| encoder |\n|---|\n| x |\n")
    cells = [{"encoder": "x", "macro_f1": f1(0.5)}]
    sweep = {"overview": tmp_path / "grid.md", "summary": write(tmp_path / "grid.json", {"cells": cells})}
    assert headlines(sweep) == ({"cells": cells}, ("| encoder |", "|---|", "| x |"))


def test_other_jobs_have_no_headline() -> None:
    assert headlines({"summary": Path("summary.md"), "ledger": Path("ledger.csv")}) == ({}, ())
