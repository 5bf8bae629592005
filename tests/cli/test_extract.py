"""``wsi-ncmi extract``: its flags reach the job, and wrong ones are one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.extraction.conftest import write_slide
from wsi_ncmi.cli.app import app
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.extraction.ledger import read_ledger
from wsi_ncmi.features import open_features_file
from wsi_ncmi.workflows.result import JobResult


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["extract", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ExtractConfig]:
    """The configurations that reach the job, which does nothing with them."""
    configs: list[ExtractConfig] = []

    def extract(config: ExtractConfig, progress: Any) -> JobResult:
        configs.append(config)
        return JobResult(files={})

    monkeypatch.setattr("wsi_ncmi.workflows.extract", extract)
    return configs


def test_flags_reach_the_job(asked: list[ExtractConfig], tmp_path: Path) -> None:
    code, _, err = call(
        "s", "--out", "o", "--mpp", "0.5", "--mpp", "1", "--mpp", "2", "--artifacts", "drop",
        "--annotations", str(tmp_path), "--stain", "macenko", "--stain-reference", "r.png",
        "--scaled-decoding", "--set", "artifacts.blur=0.7", "--encoder", "timm:resnet18", "--backend", "onnx",
        "--device", "cpu", "--precision", "fp32", "--batch-size", "4",
    )  # fmt: skip
    assert code == 0, err
    (config,) = asked
    assert (config.grid.mpp, config.further_mpp) == (0.5, (1.0, 2.0))
    assert (config.artifacts.rule, config.artifacts.blur) == ("drop", 0.7)
    assert config.annotations == tmp_path
    assert (config.stain.method, config.stain.reference) == ("macenko", Path("r.png"))
    assert config.grid.scaled_decoding
    asked_for = config.encoder
    assert (asked_for.name, asked_for.backend, asked_for.device) == ("timm:resnet18", "onnx", "cpu")
    assert (asked_for.precision, asked_for.batch_size) == ("fp32", 4)


def test_without_flags_the_defaults_hold(asked: list[ExtractConfig]) -> None:
    assert call("s", "--out", "o")[0] == 0
    (config,) = asked
    assert (config.grid.mpp, config.grid.tile_px) == ("auto", "auto")
    assert (config.further_mpp, config.annotations) == ((), None)
    assert (config.artifacts.rule, config.stain.method, config.grid.scaled_decoding) == (
        "keep",
        "none",
        False,
    )


def test_magnifications_are_resolutions(asked: list[ExtractConfig]) -> None:
    assert call("s", "--out", "o", "--magnification", "20", "--magnification", "5")[0] == 0
    assert (asked[0].grid.mpp, asked[0].further_mpp) == (0.5, (2.0,))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--mpp", "0.5", "--magnification", "20"), "both give the target resolution"),
        (("--magnification", "-1"), "got -1"),
        (("--mpp", "0.5", "--mpp", "0.5"), "asked for twice"),
        (("--artifacts", "burn"), "'artifacts.rule'"),
        (("--annotations", "nowhere"), "nowhere isn't there; check --annotations"),
        (("--stain", "purple"), "'stain.method'"),
        (
            ("--stain-reference", "r.png"),
            "(--stain-reference r.png) and 'stain.method' (the default): nothing is normalised",
        ),
        (("--stain", "macenko", "--stain-reference", "none.png"), "none.png can't be read as an image"),
        (("--mpp", "0.5", "--mpp", "-2"), "'further_mpp.0'"),
        (("--mpp", "fine"), "'grid.mpp' (--mpp fine) is wrong: it is a number, or auto, got 'fine'.\n"),
        (("--tile-px", "1"), "'grid.tile_px' (--tile-px 1) is wrong"),
        (
            ("--encoder", "hoptimus0", "--tile-px", "256"),
            "leave --mpp and --tile-px out, or pass --allow-other-grid",
        ),
    ],
)
def test_wrong_flags_are_one_sentence_and_start_nothing(
    flags: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(tmp_path / "slides" / "a.tif", 0, tissue_px=0)
    monkeypatch.chdir(tmp_path)
    code, _, err = call("slides", "--out", "out", *flags)
    assert code == 2, err
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "features").exists()


def test_a_job_with_everything(tmp_path: Path) -> None:
    write_slide(tmp_path / "slides" / "a.tif", 0)
    out = tmp_path / "out"
    code, text, err = call(
        str(tmp_path / "slides"), "--out", str(out), "--mpp", "0.5", "--mpp", "1", "--tile-px", "64",
        "--artifacts", "drop", "--stain", "reinhard", "--workers", "1",
    )  # fmt: skip
    assert code == 0, err
    assert f"contact_sheet: {out / 'contact_sheet.html'}" in text
    file = open_features_file(out / "features" / "descriptor@1um" / "a.h5")
    assert '"rule":"drop"' in file.attrs["artifacts_rule"]
    assert '"method":"reinhard"' in file.attrs["stain"]
    (row,) = read_ledger(out / "ledger.csv")
    assert row.status == "done"
    assert row.tiles > 20
