"""The command line: help, version, exit codes and one-sentence errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from wsi_ncmi import __version__
from wsi_ncmi.cli.app import app
from wsi_ncmi.cli.common import guarded

VERBS = (
    "demo", "run", "inventory", "extract", "verify", "split", "train", "compare", "evaluate", "predict",
    "synth", "doctor", "audit", "convert", "losses", "export", "heatmap", "view",
    "clean", "pseudonymise",
)  # fmt: skip


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert f"Example: wsi-ncmi {verb}" in " ".join(out.split())


@pytest.mark.parametrize(
    "verb", ["config", "encoders", "models", "extract", "train", "search", "predict", "run"]
)
def test_help_shows_nothing_of_typer_or_python(verb: str) -> None:
    text = CliRunner().invoke(app, [verb, "--help"]).stdout
    for each in ("completion", "─", "<str>", "<list", "Undefined", " ;"):
        assert each not in text


def test_help_does_not_import_torch() -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom wsi_ncmi.cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'timm', 'sklearn', 'skimage', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_version() -> None:
    assert call("--version")[1].strip() == f"wsi-ncmi {__version__}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inventory", "no_such_folder"), "no_such_folder"),
        (("run", "no_such_config"), "no_such_config"),
        (("run", "demo"), "--set slides="),
        (("train", "--features", "nowhere", "--out", "x"), "nowhere"),
        (("split", "nowhere.csv", "--out", "x.json"), "nowhere.csv"),
        (("evaluate", "nowhere.csv", "--out", "x"), "nowhere.csv"),
        (("extract", "nowhere", "--out", "x", "--shard", "9/3"), "9/3"),
        (("extract", "nowhere", "--out", "x", "--encoder", "timm:resnet5O"), "resnet50"),
        (("extract", "nowhere", "--out", "x", "--batch-size", "0"), "batch_size"),
        (
            ("extract", "nowhere", "--out", "x", "--backend", "tensorflow"),
            "(--backend tensorflow) is wrong: it is one of auto, torch",
        ),
        (("verify", "nowhere"), "nowhere"),
        (("predict", "nowhere", "--model", "nomodel", "--out", "x"), "nowhere"),
        (
            ("predict", "nowhere", "--model", "nomodel", "--out", "x", "--scale", "log"),
            "(--scale log) is wrong: it is one of percentile, absolute",
        ),
        (("predict", "nowhere", "--model", "nomodel", "--out", "x", "--unlike", "panic"), "abstain or flag"),
        (
            ("predict", "nowhere", "--model", "m", "--out", "x", "--abstain-below", "7"),
            "it is at most 1",
        ),
        (("predict", "nowhere", "--model", "m", "--out", "x", "--watch"), "no file or folder nowhere"),
        (
            ("predict", "s", "--model", "m", "--out", "x", "--interval", "5"),
            "--interval is for a watched folder",
        ),
        (
            ("predict", "s", "--model", "m", "--out", "x", "--dicom-map"),
            "it is about the DICOM results; add --dicom, or leave it out",
        ),
        (("heatmap", "f", "--model", "m", "--out", "x", "--dicom"), "give them with --slides"),
        (("extract", "nowhere", "--out", "x" * 300), "File name too long"),
        (("extract", "nowhere", "--out", ""), "it needs a name"),
        (("extract", "nowhere", "--out", "x", "--encoder", "onnx:nope"), "There is no ONNX file nope"),
        (("export", "norun", "--out", "x"), "norun"),
        (("heatmap", "nowhere", "--model", "nomodel", "--out", "x"), "nowhere"),
        (("view", "nowhere.svs"), "nowhere.svs"),
        (("view", "nowhere.svs", "--model", "m"), "nowhere.svs"),
        (("config", "show", "--set", "seeds=0"), "seeds"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*arguments)
    assert code == 2, err
    assert words in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_a_flag_that_does_not_exist_is_exit_code_2() -> None:
    assert call("inventory", "--colour")[0] == 2


def test_config_init_show_schema(tmp_path: Path) -> None:
    target = tmp_path / "job.yaml"
    assert call("config", "init", "--from", "tcga_rcc", "--out", str(target))[0] == 0
    code, out, _ = call("config", "show", str(target), "--set", "seeds=7")
    assert code == 0
    assert "seeds: 7" in out
    assert "TCGA-RCC" in out
    assert call("config", "init", "--out", str(target))[0] == 2
    assert "losses" in json.loads(call("config", "schema")[1])["properties"]


def test_doctor_prints_json() -> None:
    code, out, _ = call("doctor", "--json", "--probe-seconds", "0")
    findings = {item["name"]: item for item in json.loads(out)}
    assert code == 0
    assert findings["openslide"]["status"] == "ok"
    assert findings["codecs"]["status"] == "ok"
    assert all(item["remedy"] for item in findings.values() if item["status"] != "ok")


def test_doctor_finds_planted_faults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WSI_NCMI_WEIGHTS", str(tmp_path / "missing"))
    code, out, _ = call("doctor", "--json", "--probe-seconds", "0")
    findings = {item["name"]: item for item in json.loads(out)}
    assert code == 1
    assert findings["weights folder"]["status"] == "fail"


def test_sigterm_ends_any_verb_as_ctrl_c_does(capsys: pytest.CaptureFixture[str]) -> None:
    def work(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        raise AssertionError("unreachable")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as ended:
        guarded(work, quiet=True, debug=False)
    assert ended.value.exit_code == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("path", ["/dev/full", "/proc/version"])
def test_storage_that_is_full_or_read_only_is_no_internal_error(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        guarded(lambda _: Path(path).write_text("x"), quiet=True, debug=False)
    told = capsys.readouterr().err
    assert ended.value.exit_code == 1
    assert "start the same command again, what is done is kept" in told
    assert "Internal" not in told


def test_the_flag_of_0_1_for_slides_out_of_distribution_still_works() -> None:
    from wsi_ncmi.cli.predict import _threshold

    assert [_threshold(value) for value in (None, "abstain", "flag")] == [None, 1.0, float("inf")]
