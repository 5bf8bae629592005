"""The demo from an installed wheel: the contract of the command line, and what a newcomer opens."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.api.snippets import JOBS, SNIPPETS
from tests.end_to_end.conftest import PROJECT, Demo, clean_environment
from wsi_ncmi.features import open_features_file
from wsi_ncmi.prediction import ExportConfig, load_bundle
from wsi_ncmi.synthesis import write_pyramid
from wsi_ncmi.workflows.export import export

pytestmark = pytest.mark.slow


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_wheel_is_what_ran(demo: Demo) -> None:
    script = "import wsi_ncmi; print(wsi_ncmi.__file__)"
    python = demo.command.parent / "python"
    found = subprocess.run(
        [str(python), "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env=clean_environment(),
    )
    assert str(PROJECT) not in found.stdout
    assert str(demo.command.parents[1]) in found.stdout


def test_every_snippet_of_a_newcomer_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Warnings are errors, as everywhere in the suite."""
    script = tmp_path / "snippets.py"
    script.write_bytes((PROJECT / "tests" / "api" / "snippets.py").read_bytes())
    warnings = "error,ignore::DeprecationWarning,ignore::PendingDeprecationWarning"
    result = subprocess.run(
        [str(installed.parent / "python"), str(script), str(tmp_path / "work")], cwd=tmp_path,
        env=clean_environment() | {"PYTHONWARNINGS": warnings}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(re.findall("^ok ", result.stdout, re.MULTILINE)) == len(JOBS) + len(SNIPPETS)


def test_it_ends_with_the_report_and_the_result(demo: Demo) -> None:
    lines = demo.stdout.strip().splitlines()
    at = lines.index(f"report: {demo.folder / 'run' / 'report.html'}")
    assert [line.partition(" 0.")[0] for line in lines[at + 1 : at + 3]] == [
        "Macro-F1 (ncmi)",
        "Macro-F1 (ce)",
    ]
    assert lines[-1].startswith("Macro-F1 of ncmi minus ce: ")
    assert (demo.folder / "run" / "report.html").stat().st_size < 6e6


def test_the_report_shows_slides_and_where_the_models_looked(demo: Demo) -> None:
    run = demo.folder / "run"
    report = (run / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<img src="data:image/webp;base64,[^"]+" alt="([^"]+)"', report)
    assert len(pictures) >= 12
    assert all("Thumbnail of slide" in alt for alt in pictures[::2])
    assert all(
        "mean of 2 models" in alt for alt in pictures[1::2]
    )  # the two seeds of the fold that tested it
    assert "thumbnail (50 slides)" in report  # of 51, one without tissue
    assert "tile_px: 256" in report  # the extraction's configuration, too
    for name in ("roc", "selective", "confusion", "information"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 5_000
    assert len(rows(run / "tables" / "slides.csv")) == 50


def test_every_slide_is_done_and_one_has_no_tissue(demo: Demo) -> None:
    ledger = demo.ledger
    labels = rows(demo.folder / "labels.csv")
    assert {row["slide_id"] for row in ledger} == {row["slide_id"] for row in labels}
    assert Counter(row["status"] for row in ledger) == {"done": len(labels)}
    empty = [row for row in ledger if row["tiles"] == "0"]
    assert len(empty) == 1
    assert "no tissue" in empty[0]["reason"]
    assert min(int(row["tiles"]) for row in ledger if row not in empty) >= 100


def test_the_cohort_is_as_promised(demo: Demo) -> None:
    labels = rows(demo.folder / "labels.csv")
    patients = {row["case_id"] for row in labels}
    assert len(patients) >= 10
    for name in ("negative", "itc", "micro", "macro"):
        assert len({row["case_id"] for row in labels if row["label"] == name}) >= 3
    assert len({row["centre"] for row in labels}) == 5


def test_predictions_follow_the_contract(demo: Demo) -> None:
    table = rows(demo.folder / "run" / "predictions.csv")
    columns = ["slide_id", "case_id", "fold", "seed", "label", "prediction"]
    assert list(table[0])[:6] == columns
    tested = Counter((row["seed"], row["slide_id"]) for row in table)
    assert set(tested.values()) == {1}
    for row in table:
        assert sum(float(v) for k, v in row.items() if k.startswith("p_")) == pytest.approx(1, abs=1e-6)


def test_it_learns_from_the_slides(demo: Demo) -> None:
    metrics = json.loads((demo.folder / "run" / "metrics.json").read_text())
    for name in ("ncmi", "ce"):
        macro_f1 = metrics["losses"][name]["macro_f1"]
        # Always answering "negative" has 0.195; a random order of the labels about 0.25.
        assert macro_f1["value"] > 0.33
        assert macro_f1["ci_low"] <= macro_f1["value"] <= macro_f1["ci_high"]


def test_no_output_names_a_folder_of_this_machine(demo: Demo) -> None:
    here = re.escape(str(demo.folder.parent))
    for path in demo.folder.rglob("*"):
        if path.suffix in (".json", ".csv", ".html", ".md", ".yaml", ".geojson", ".h5"):
            content = path.read_bytes().decode("latin-1")
            assert not re.search(here, content), f"{path.name} names the output folder"
            assert os.uname().nodename not in content or len(os.uname().nodename) < 4


def test_the_same_command_again_does_nothing_twice(demo: Demo) -> None:
    before = {p: p.stat().st_mtime_ns for p in (demo.folder / "features").rglob("*.h5")}
    report = (demo.folder / "run" / "predictions.csv").read_bytes()
    again = demo.run("demo", "--out", str(demo.folder))
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (demo.folder / "run" / "predictions.csv").read_bytes() == report


def test_verify_proves_every_file(demo: Demo) -> None:
    result = demo.run("verify", str(demo.folder), "--json")
    assert result.returncode == 0, result.stdout
    assert json.loads(result.stdout)["bad"] == 0


@pytest.fixture(scope="module")
def bundle(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made in this virtual environment, from the run that the installed wheel left."""
    path = tmp_path_factory.mktemp("bundle") / "model.zip"
    export(ExportConfig(run=demo.folder / "run" / "ncmi", out=path))
    return path


def test_predict_in_another_environment_than_the_bundles(demo: Demo, bundle: Path, tmp_path: Path) -> None:
    slides = tmp_path / "new"
    slides.mkdir()
    chosen = sorted((demo.folder / "slides").iterdir())[:2]
    for path in chosen:
        shutil.copy(path, slides)
    (slides / "note.svs").write_text("not a slide")
    result = demo.run("predict", str(slides), "--model", str(bundle), "--out", str(tmp_path / "out"))
    assert result.returncode == 1, result.stderr  # the text file failed, the rest was done
    table = {row["slide_id"]: row for row in rows(tmp_path / "out" / "predictions.csv")}
    assert len(table) == 3
    assert table["note"]["prediction"] == ""
    assert table["note"]["reason"]
    done = [row for row in table.values() if row["prediction"]]
    assert len(done) == 2
    model = load_bundle(bundle)  # in this environment
    for row in done:
        geometry = json.loads((tmp_path / "out" / "attention" / f"{row['slide_id']}.geojson").read_text())
        assert len(geometry["features"]) == int(row["tiles"])
        # Slides of the training themselves are not unlike it.
        assert row["ood"] == ""
        features = open_features_file(
            demo.folder / "features" / "descriptor" / f"{row['slide_id']}.h5"
        ).features
        expected = model.predict(features).probabilities
        assert [float(row[f"p_{name}"]) for name in model.classes] == pytest.approx(
            expected.tolist(), rel=1e-5
        )
    assert "For research use" in (tmp_path / "out" / "report.html").read_text()


def test_a_slide_of_another_kind_is_flagged(demo: Demo, bundle: Path, tmp_path: Path) -> None:
    y, x = np.mgrid[:2048, :2048]
    pixels = np.full((2048, 2048, 3), 245, np.uint8)
    inside = (x - 1024) ** 2 + (y - 1024) ** 2 < 800**2
    pixels[inside] = (110, 120, 190)  # blue all over: no eosin
    pixels[inside & ((x // 8 + y // 8) % 2 == 0)] = (70, 80, 160)
    (tmp_path / "new").mkdir()
    write_pyramid(tmp_path / "new" / "blue.svs", pixels, 0.5)
    result = demo.run(
        "predict",
        str(tmp_path / "new"),
        "--model",
        str(bundle),
        "--out",
        str(tmp_path / "out"),
        "--no-heatmaps",
    )
    assert result.returncode == 0, result.stderr
    (row,) = rows(tmp_path / "out" / "predictions.csv")
    assert row["decision"] == "abstain"
    assert {"stain", "features", "foreign_tiles"} <= set(row["ood"].split(";"))


def test_the_installed_wheel_holds_the_page_of_the_viewer(demo: Demo) -> None:
    slide = next(iter(sorted((demo.folder / "slides").iterdir())))
    code = (
        "import sys; from pathlib import Path; from urllib.request import urlopen\n"
        "from wsi_ncmi.prediction import ViewConfig\n"
        "from wsi_ncmi.workflows.view import open_view\n"
        "with open_view(ViewConfig(slide=Path(sys.argv[1]))) as server:\n"
        "    server.start()\n"
        "    print([len(urlopen(server.url + n).read()) for n in ('', 'openseadragon.min.js', 'slide/9/0_0.jpg')])\n"
    )
    done = subprocess.run(
        [str(demo.command.parent / "python"), "-c", code, str(slide)], capture_output=True, text=True, check=False,
        cwd="/", env=clean_environment() | {"no_proxy": "127.0.0.1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert min(json.loads(done.stdout)) > 1000


def test_a_tampered_bundle_is_refused_in_one_sentence(demo: Demo, bundle: Path, tmp_path: Path) -> None:
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model.zip").write_bytes(content)
    result = demo.run(
        "predict",
        str(demo.folder / "slides"),
        "--model",
        str(tmp_path / "model.zip"),
        "--out",
        str(tmp_path / "out"),
    )
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


Script = Callable[..., str]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Runs a script of ``pipelines/`` in this process, where everything is loaded; returns what it prints."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(PROJECT / "pipelines" / name), run_name="__main__")
        assert ended.value.code == 0
        return capsys.readouterr().out

    return run


def test_the_demo_script_does_what_the_verb_does(demo: Demo, script: Script) -> None:
    said = script("demo.py", str(demo.folder))  # everything is there: the same job finds nothing to do
    assert said.strip().endswith("report.html")


def test_the_subtyping_script_and_the_run_verb_give_the_same_numbers(demo: Demo, tmp_path: Path) -> None:
    settings = (
        f"features={demo.folder / 'features' / 'descriptor'}", f"labels={demo.folder / 'labels.csv'}",
        "seeds=1", "training.epochs=3", "evaluation.figures=[]", "evaluation.resamples=100",
    )  # fmt: skip
    # As a process of its own, for it starts others.
    by_script = subprocess.run(
        [sys.executable, str(PROJECT / "pipelines" / "subtyping.py"), "demo", *settings, f"out={tmp_path / 'script'}"],
        capture_output=True, text=True, check=False, cwd=PROJECT,
    )  # fmt: skip
    assert by_script.returncode == 0, by_script.stderr
    flags = [part for setting in (*settings, f"out={tmp_path / 'verb'}") for part in ("--set", setting)]
    flags += ["--set", "workers=1"]
    by_verb = demo.run("run", "demo", *flags)
    assert by_verb.returncode == 0, by_verb.stderr
    first, second = (tmp_path / name / "run" / "predictions.csv" for name in ("script", "verb"))
    assert first.read_bytes() == second.read_bytes()


def test_the_loss_comparison_script(demo: Demo, script: Script, tmp_path: Path) -> None:
    script(
        "loss_comparison.py", str(demo.folder / "features" / "descriptor"), str(tmp_path / "out"),
        f"labels={demo.folder / 'labels.csv'}", "seeds=1", "training.epochs=2", "split.folds=3",
        "workers=1", "evaluation.figures=[]", "evaluation.resamples=100",
    )  # fmt: skip
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [(d["a"], d["b"]) for d in found["differences"]] == [("ncmi", "ce"), ("ncmi", "weighted_ce")]
    assert len(rows(tmp_path / "out" / "compare.csv")) == 9


def test_the_prediction_script_gives_the_bundles_numbers(
    demo: Demo, bundle: Path, script: Script, tmp_path: Path
) -> None:
    slide = next(path for path in sorted((demo.folder / "slides").iterdir()) if "node_0" in path.name)
    said = script("prediction.py", str(slide), str(bundle), str(tmp_path / "out"))
    assert said.strip().endswith("report.html")
    (row,) = rows(tmp_path / "out" / "predictions.csv")
    model = load_bundle(bundle)
    features = open_features_file(demo.folder / "features" / "descriptor" / f"{row['slide_id']}.h5").features
    expected = model.predict(features).probabilities.tolist()
    assert [float(row[f"p_{name}"]) for name in model.classes] == pytest.approx(expected, rel=1e-5)
