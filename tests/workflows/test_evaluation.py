"""``wsi-ncmi evaluate`` on tables written by hand and by other tools, and its paired comparison."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.metrics.metrics_file import MetricsFile
from wsi_ncmi.prediction.verdicts import Verdict, append_verdict

# Ten slides of six patients, by hand.
HAND = """slide_id,case_id,label,p_benign,p_malignant
s1,anna,benign,0.9,0.1
s2,anna,benign,0.6,0.4
s3,bert,malignant,0.2,0.8
s4,bert,benign,0.3,0.7
s5,carl,malignant,0.1,0.9
s6,carl,malignant,0.7,0.3
s7,dora,benign,0.8,0.2
s8,emil,malignant,0.45,0.55
s9,fred,benign,0.55,0.45
s10,fred,malignant,0.05,0.95
"""


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def evaluated(path: Path, out: Path, *more: object) -> dict[str, object]:
    quick = ("--resamples", 200, "--figures", "none")
    code, _, err = call("evaluate", path, "--out", out, *quick, *more)
    assert code == 0, err
    content = json.loads((out / "metrics.json").read_text())
    MetricsFile.model_validate(content)
    assert (out / "report.html").read_text("utf-8").rstrip().endswith("</html>")
    assert (out / "summary.md").read_text().startswith("# Evaluation of")
    return content


@pytest.fixture
def hand(tmp_path: Path) -> Path:
    path = tmp_path / "hand.csv"
    path.write_text(HAND)
    return path


def test_a_table_written_by_hand(hand: Path, tmp_path: Path) -> None:
    content = evaluated(hand, tmp_path / "out")
    rows = list(csv.DictReader(HAND.splitlines()))
    predicted = ["malignant" if float(row["p_malignant"]) > 0.5 else "benign" for row in rows]
    wanted = f1_score([row["label"] for row in rows], predicted, average="macro")
    assert content["macro_f1"]["value"] == pytest.approx(wanted)
    assert content["confusion_matrix"]["counts"] == [[4.0, 1.0], [1.0, 4.0]]
    assert (content["n_slides"], content["n_patients"], content["recalibration"]) == (10, 6, None)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert set(record["hashes"]) == {"hand.csv"}
    assert "hand.csv" in (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "out" / "figures").exists()


def test_clams_format(tmp_path: Path) -> None:
    folder = tmp_path / "EVAL_x"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = ["case_id,slide_id,label"]
    for fold in range(2):
        lines = ["slide_id,Y,Y_hat,p_0,p_1"]
        for i in range(12):
            p, y = rng.uniform(0, 1), i % 2
            lines.append(f"s{fold}_{i},{y}.0,{int(p > 0.5)}.0,{1 - p},{p}")
            labels.append(f"c{fold}_{i // 2},s{fold}_{i},{'tumor' if y else 'normal'}")
        (folder / f"fold_{fold}.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "dataset.csv").write_text("\n".join(labels) + "\n")
    content = evaluated(folder, tmp_path / "out", "--labels", f"clam:{tmp_path / 'dataset.csv'}")
    assert content["classes"] == ["normal", "tumor"]
    assert (content["n_slides"], content["n_patients"], content["n_folds"]) == (24, 12, 2)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert set(record["hashes"]) == {"fold_0.csv", "fold_1.csv", "dataset.csv"}


def test_stamps_format(tmp_path: Path) -> None:
    path = tmp_path / "patient-preds.csv"
    lines = ["PATIENT,isMSIH,pred,isMSIH_MSIH,isMSIH_nonMSIH,loss"]
    lines += [f"p{i},{'MSIH' if i % 3 else 'nonMSIH'},MSIH,0.7,0.3,0.36" for i in range(9)]
    path.write_text("\n".join(lines) + "\n")
    content = evaluated(path, tmp_path / "out")
    assert content["per_class"]["nonMSIH"]["recall"]["value"] == 0.0
    assert content["accuracy"]["value"] == pytest.approx(6 / 9)
    assert content["n_patients"] == 9


def test_two_runs_are_compared_in_pairs(hand: Path, tmp_path: Path) -> None:
    other = tmp_path / "better.csv"
    other.write_text(HAND.replace("0.7,0.3\n", "0.4,0.6\n").replace("0.3,0.7\n", "0.6,0.4\n"))
    run = tmp_path / "run"  # a run folder is taken as its table
    run.mkdir()
    (run / "predictions.csv").write_text(HAND)
    content = evaluated(hand, tmp_path / "out", "--against", other, "--against", run)
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    better, same = found["differences"]
    assert (better["a"], better["b"], same["b"]) == ("hand.csv", "better.csv", "run")
    assert better["difference"] == pytest.approx(content["macro_f1"]["value"] - 1.0)
    assert found["macro_f1"]["better.csv"]["value"] == 1.0
    assert (same["difference"], same["ci_low"], same["ci_high"]) == (0.0, None, None)
    assert "minus better.csv" in (tmp_path / "out" / "summary.md").read_text()
    assert "Paired comparison" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HAND.replace("s10,fred", "s11,fred"), "aren't paired.*'s1[01]'"),
        (HAND.replace("p_benign", "p_normal").replace("benign", "normal"), "only runs of one task"),
    ],
)
def test_runs_that_can_not_be_compared(hand: Path, tmp_path: Path, text: str, message: str) -> None:
    other = tmp_path / "other.csv"
    other.write_text(text)
    code, _, err = call("evaluate", hand, "--out", tmp_path / "out", "--against", other)
    assert code == 2
    assert "other.csv" in err
    import re

    assert re.search(message, err.replace("\n", " "))
    assert not (tmp_path / "out").exists()


def test_equal_names_are_told_apart_by_their_folder(hand: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "predictions.csv").write_text(HAND)
    files = [tmp_path / name / "predictions.csv" for name in ("a", "b")]
    evaluated(files[0], tmp_path / "out", "--against", files[1])
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (found["headline"], found["differences"][0]["b"]) == ("a/predictions.csv", "b/predictions.csv")
    code, _, err = call("evaluate", files[0], "--out", tmp_path / "x", "--against", files[0])
    assert code == 2
    assert "same name" in err


def test_wrong_formats_of_figures(hand: Path, tmp_path: Path) -> None:
    code, _, err = call("evaluate", hand, "--out", tmp_path / "out", "--figures", "gif")
    assert code == 2
    assert "figures" in err


def test_weighted_kappa_needs_an_order(hand: Path, tmp_path: Path) -> None:
    plain = evaluated(hand, tmp_path / "plain")
    assert plain["kappa_quadratic"]["value"] is None
    assert "no order" in plain["kappa_quadratic"]["reason"]
    ordered = evaluated(hand, tmp_path / "ordered", "--order", "benign,malignant")
    assert ordered["order"] == ["benign", "malignant"]
    # Of two classes any disagreement is one step: weighted or not is the same.
    assert ordered["kappa_quadratic"]["value"] == pytest.approx(plain["kappa"]["value"])
    code, _, err = call("evaluate", hand, "--out", tmp_path / "x", "--order", "benign,malign")
    assert code == 2
    assert "must name each class of the task once (benign, malignant)" in err


def test_predict_s_own_table_with_labels(tmp_path: Path) -> None:
    """External validation in two commands: new slides have no fold, seed, label and, here, no patient."""
    from wsi_ncmi.prediction import Calibration
    from wsi_ncmi.prediction.outputs import slide_table
    from wsi_ncmi.prediction.slide_prediction import SlidePrediction

    rows = [line.split(",") for line in HAND.splitlines()[1:]]
    given = [
        SlidePrediction(
            slide_id=f"{row[0]}.svs",
            prediction=("malignant", "benign")[float(row[3]) > 0.5],
            probabilities={"benign": float(row[3]), "malignant": float(row[4])},
            model={"digest": str(number // 6)},
        )
        for number, row in enumerate(rows)
    ]
    given.append(SlidePrediction(slide_id="glass", reason="no tissue found"))
    table = tmp_path / "predictions.csv"
    slide_table(given, ("benign", "malignant"), Calibration()).to_csv(table, index=False)
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "slide_id;case_id;label\n" + "".join(f"{r[0]};{r[1]};{r[2]}\n" for r in rows) + "idle;x;benign\n"
    )
    content = evaluated(table, tmp_path / "out", "--labels", labels)
    assert content["confusion_matrix"]["counts"] == [[4.0, 1.0], [1.0, 4.0]]
    assert (content["n_slides"], content["n_patients"], content["n_folds"]) == (10, 6, 1)
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "1 slide without a prediction left out, such as glass (no tissue found)." in summary
    assert "1 labelled slide without a prediction, such as idle." in summary
    assert "those of 2 models" in summary
    code, _, err = call("evaluate", table, "--out", tmp_path / "none")
    assert code == 2
    assert "the 'case_id' is empty; fill it in or give --labels" in " ".join(err.split())


def test_patients_spelled_almost_alike_are_told(hand: Path, tmp_path: Path) -> None:
    hand.write_text(HAND.replace("s2,anna", "s2,Anna"))
    assert evaluated(hand, tmp_path / "out")["n_patients"] == 7
    assert (
        "The patients 'anna' and 'Anna' differ only in case" in (tmp_path / "out" / "summary.md").read_text()
    )


def judged(folder: Path) -> tuple[Path, Path]:
    """Predictions as ``predict`` writes them, without labels, and verdicts on three of them."""
    lines = ["slide_id,case_id,label,prediction,p_benign,p_malignant,decision"]
    rows = [line.split(",") for line in HAND.splitlines()[1:]]
    for slide, case, _, benign, malignant in rows:
        top = "benign" if float(benign) > 0.5 else "malignant"
        lines.append(f"{slide},{case},,{top},{benign},{malignant},{top}")
    table = folder / "predictions.csv"
    table.write_text("\n".join(lines) + "\n")
    words = (("s1", "benign", "agree"), ("s3", "malignant", "agree"), ("s4", "malignant", "disagree"))
    for slide, prediction, verdict in words:
        append_verdict(
            folder / "verdicts.csv",
            Verdict(
                slide, "", prediction, prediction, verdict, "", "", "AB", "2026-01-01T00:00:00Z", "m", "d"
            ),
        )
    return table, folder / "verdicts.csv"


def test_verdicts_without_labels_are_evaluated_alone(tmp_path: Path) -> None:
    table, verdicts = judged(tmp_path)
    out = tmp_path / "out"
    code, told, err = call("evaluate", tmp_path, "--verdicts", verdicts, "--out", out, "--resamples", 100)
    assert code == 0, err
    assert "agreed with 2 of 3 answers, 66.7 %" in " ".join((told + err).split())
    content = json.loads((out / "verdicts.json").read_text())
    assert (content["slides"], content["agree"], content["disagree"]) == (10, 2, 1)
    assert not (out / "metrics.json").exists()
    code, _, err = call(
        "evaluate", table, "--verdicts", verdicts, "--against", table, "--out", tmp_path / "x"
    )
    assert code == 2
    assert "give --labels" in err


def test_verdicts_beside_labels_stand_in_the_report(hand: Path, tmp_path: Path) -> None:
    table, verdicts = judged(tmp_path)
    evaluated(table, tmp_path / "out", "--verdicts", verdicts, "--labels", hand)
    assert json.loads((tmp_path / "out" / "verdicts.json").read_text())["agreement"]["value"] == 2 / 3
    assert "agreed with 2 of 3 answers" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_verdicts_that_can_not_be_read(tmp_path: Path) -> None:
    table, verdicts = judged(tmp_path)
    verdicts.write_text("slide_id,verdict\ns1,agree\n")
    for path, words in ((verdicts, "lacks the columns"), (tmp_path / "none.csv", "none.csv")):
        code, _, err = call("evaluate", table, "--verdicts", path, "--out", tmp_path / "out")
        assert code == 2
        assert words in err
    assert not (tmp_path / "out").exists()
