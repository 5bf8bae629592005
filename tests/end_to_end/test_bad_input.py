"""Bad input: one clear sentence, a ledger row, the right exit code, and the rest of the job finished."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.synthesis import write_test_slide

SIZE = {"width_px": 640, "height_px": 640}


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*arguments, "--quiet"])
    return result.exit_code, result.stdout, result.stderr


def ledger_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / "ledger.csv").open(newline="") as handle:
        return {row["slide_id"]: row for row in csv.DictReader(handle)}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int, str]:
    """A folder with sound and faulty slides, extracted."""
    root = tmp_path_factory.mktemp("bad")
    slides = root / "slides"
    slides.mkdir()
    for number in range(12):
        write_test_slide(slides / f"p{number:02d}.svs", seed=number, tissue_share=0.6, **SIZE)
    write_test_slide(slides / "empty.svs", seed=50, tissue_share=0.0, **SIZE)
    write_test_slide(slides / "no_mpp.svs", seed=51, mpp=None, **SIZE)
    write_test_slide(slides / "cut.svs", seed=52, tissue_share=0.6, **SIZE)
    content = (slides / "cut.svs").read_bytes()
    (slides / "cut.svs").write_bytes(content[: len(content) // 2])
    (slides / "text.svs").write_text("this is no slide")
    code, _, err = call(
        "extract", str(slides), "--out", str(root / "out"), "--tile-px", "128", "--workers", "1"
    )
    return root, root / "out", code, err


def test_the_job_finishes_and_exits_1(extracted: tuple[Path, Path, int, str]) -> None:
    _, out, code, err = extracted
    rows = ledger_of(out)
    assert code == 1
    assert len(rows) == 16
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {"no_mpp", "cut", "text"}
    for name in ("no_mpp", "cut", "text"):
        assert f"failed: {name}: " in err
        assert rows[name]["reason"]
        assert "Traceback" not in rows[name]["reason"]


def test_each_reason_says_what_is_wrong(extracted: tuple[Path, Path, int, str]) -> None:
    rows = ledger_of(extracted[1])
    assert "mpp" in rows["no_mpp"]["reason"] or "resolution" in rows["no_mpp"]["reason"]
    assert "truncated" in rows["cut"]["reason"] or "cut" in rows["cut"]["reason"]
    assert "text" in rows["text"]["reason"]


def test_no_tissue_is_done_with_an_empty_file(extracted: tuple[Path, Path, int, str]) -> None:
    row = ledger_of(extracted[1])["empty"]
    assert (row["status"], row["tiles"]) == ("done", "0")
    assert "no tissue" in row["reason"]
    assert (extracted[1] / "features" / "descriptor" / "empty.h5").is_file()


def test_a_default_mpp_saves_the_slide_without_one(extracted: tuple[Path, Path, int, str]) -> None:
    root, out, _, _ = extracted
    code, _, _ = call(
        "extract", str(root / "slides" / "no_mpp.svs"), "--out", str(root / "saved"), "--default-mpp", "0.5",
        "--tile-px", "128", "--workers", "1",
    )  # fmt: skip
    assert code == 0
    assert ledger_of(root / "saved")["no_mpp"]["mpp_source"] == "default"
    assert out.is_dir()


def test_other_settings_never_overwrite_unasked(extracted: tuple[Path, Path, int, str]) -> None:
    root, out, _, _ = extracted
    before = (out / "features" / "descriptor" / "p00.h5").read_bytes()
    code, _, err = call(
        "extract", str(root / "slides"), "--out", str(out), "--tile-px", "96", "--workers", "1"
    )
    assert code == 2
    assert "128" in err
    assert "96" in err
    assert "--overwrite" in err
    assert (out / "features" / "descriptor" / "p00.h5").read_bytes() == before


def write_labels(path: Path, lines: list[str], header: str = "slide_id,label,case_id") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def train(root: Path, labels: Path, out: str, *more: str) -> tuple[int, str, str]:
    return call(
        "train", "--features", str(root / "out"), "--labels", str(labels), "--out", str(root / out), "--loss", "ce",
        "--folds", "2", "--epochs", "1", "--workers", "1", "--set", "evaluation.figures=[]", "--set", "evaluation.resamples=100", *more,
    )  # fmt: skip


LABELS = [f"p{number:02d},{'ab'[number % 2]},c{number:02d}" for number in range(12)]


def test_labels_without_slide_and_slides_without_label_are_told(
    extracted: tuple[Path, Path, int, str],
) -> None:
    root = extracted[0]
    labels = write_labels(root / "partial.csv", [*LABELS[:10], "ghost,a,c99", "empty,b,c50"])
    result = CliRunner().invoke(
        app,
        ["train", "--features", str(root / "out"), "--labels", str(labels), "--out", str(root / "partial"),
         "--loss", "ce", "--folds", "2", "--epochs", "1", "--workers", "1", "--set", "evaluation.figures=[]", "--set", "evaluation.resamples=100"],
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "ghost: label without features" in result.stdout
    assert "p11: features without label" in result.stdout
    assert "empty: no tissue" in result.stdout
    report = (root / "partial" / "report.html").read_text()
    assert "labels without a slide" in report
    assert "features without label" in report


def test_labels_without_patients_need_a_word_from_the_user(extracted: tuple[Path, Path, int, str]) -> None:
    root = extracted[0]
    labels = write_labels(
        root / "anonymous.csv", [line.rsplit(",", 1)[0] for line in LABELS], "slide_id,label"
    )
    code, _, err = train(root, labels, "anonymous")
    assert code == 2
    assert "--group slide_id" in err
    assert not (root / "anonymous").exists()
    code, _, err = train(root, labels, "anonymous", "--group", "slide_id")
    assert code == 0, err
    assert "taken for a patient" in (root / "anonymous" / "report.html").read_text()


def test_one_class_only_and_too_few_patients_of_a_class(extracted: tuple[Path, Path, int, str]) -> None:
    root = extracted[0]
    one = write_labels(root / "one.csv", [f"p{n:02d},a,c{n:02d}" for n in range(12)])
    code, _, err = train(root, one, "one")
    assert code == 2
    assert "'a'" in err
    few = write_labels(root / "few.csv", [*[f"p{n:02d},a,c{n:02d}" for n in range(11)], "p11,b,c11"])
    code, _, err = train(root, few, "few")
    assert code == 2
    assert "'b'" in err
    assert "patient" in err


def test_a_leaking_split_is_refused_and_said_in_the_report(extracted: tuple[Path, Path, int, str]) -> None:
    root = extracted[0]
    # The first two slides are one patient's.
    pair = ["p00,a,c00", "p01,a,c00", *LABELS[2:]]
    labels = write_labels(root / "pairs.csv", pair)
    assert call("split", str(labels), "--out", str(root / "s.json"), "--folds", "2")[0] == 0
    splits = json.loads((root / "s.json").read_text())
    fold = next(fold for fold in splits["folds"] if "p00" in fold["test"])
    fold["train"].append("p00")  # its sister p01 stays in the test part
    fold["test"].remove("p00")
    (root / "s.json").write_text(json.dumps(splits))
    code, _, err = train(root, labels, "leak", "--splits", str(root / "s.json"))
    assert code == 2
    assert "--allow-leak" in err
    code, _, err = train(root, labels, "leak", "--splits", str(root / "s.json"), "--allow-leak")
    assert code == 0, err
    assert "LEAKS" in (root / "leak" / "report.html").read_text()


def test_an_output_that_cannot_be_written(extracted: tuple[Path, Path, int, str]) -> None:
    root = extracted[0]
    (root / "blocked").write_text("a file where a folder should be")
    code, _, err = call("extract", str(root / "slides"), "--out", str(root / "blocked" / "out"))
    assert code == 2
    assert "can't be written to" in err
    assert "--out" in err


def test_too_few_patients_for_a_validation_part(extracted: tuple[Path, Path, int, str]) -> None:
    root = extracted[0]
    labels = write_labels(root / "tiny.csv", LABELS[:4])
    code, _, err = train(root, labels, "tiny")
    assert code == 2
    assert "validation part" in err
    assert not (root / "tiny").exists()
