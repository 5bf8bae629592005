"""Losses × seeds on an image set: what is trained, what is summed up, what is refused."""

from __future__ import annotations

import csv
import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from scipy import stats

from wsi_ncmi.core.config import read_config
from wsi_ncmi.core.errors import InputError, TrainingError
from wsi_ncmi.vision import ImageJobConfig, run_images, text_table
from wsi_ncmi.vision.summary import summarise_runs
from wsi_ncmi.workflows.config import find_config, shipped_configs
from wsi_ncmi.workflows.result import JobResult

SMALL = (
    "network.arguments={layers: [1, 1, 1, 1], channels: [4, 4, 8, 8]}",
    "recipe={epochs: 2, batch_size: 16, warmup_epochs: 0.5, schedule: cosine, device: cpu, learning_rate: 0.05}",
)


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    path = tmp_path_factory.mktemp("set") / "bright.npz"
    rng = np.random.default_rng(0)
    y = np.arange(64) % 2
    x = np.clip(rng.normal(90 + 70 * y[:, None, None, None], 40, (64, 8, 8, 3)), 0, 255).astype(np.uint8)
    np.savez(path, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    return path


def configured(image_set, out, *overrides):
    overrides = (*SMALL, f"data.path={image_set}", *overrides)
    return read_config(ImageJobConfig, flags={"out": out}, overrides=overrides)


def done(config, **options):
    return JobResult(*run_images(config, **options))


@pytest.fixture(scope="module")
def whole(image_set, tmp_path_factory):
    """Two losses with two seeds, one after the other."""
    out = tmp_path_factory.mktemp("whole")
    config = configured(image_set, out, "losses=[ce, ncmi_paper]", "seeds=2")
    return config, done(config)


def rows_of(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_every_run_has_a_row_and_the_summary_is_theirs(whole):
    config, result = whole
    assert result.exit_code == 0
    rows = rows_of(result.files["runs"])
    assert [(row["loss"], row["seed"]) for row in rows] == [
        ("ce", "0"), ("ncmi_paper", "0"), ("ce", "1"), ("ncmi_paper", "1"),
    ]  # fmt: skip
    for row in rows:
        folder = config.out / row["loss"] / f"seed_{row['seed']}"
        curves = rows_of(folder / "curves.csv")
        assert row["top1"] == curves[-1]["top1"]
        assert float(row["top1_highest"]) == max(float(line["top1"]) for line in curves)
    summary = json.loads(result.files["summary"].read_text())
    assert summary["reference"] == "ce"
    assert summary["forms"]["ncmi_paper"]["normalise"] == "l2"
    values = [float(row["macro_f1"]) for row in rows if row["loss"] == "ce"]
    assert summary["losses"]["ce"]["macro_f1"]["mean"] == pytest.approx(np.mean(values))
    assert "top1_nearest" not in summary["losses"]["ce"]
    assert str(config.out) not in result.files["summary"].read_text()


def test_the_page_stands_alone_and_escapes(whole, image_set, tmp_path):
    config, result = whole
    page = result.files["page"].read_text()
    assert "<h1>Image recognition</h1>" in page
    assert "ncmi_paper" in page
    assert "src=" not in page.split("<body>")[0]
    shutil.copytree(config.out / "ce", tmp_path / "ce")
    titled = configured(image_set, tmp_path, "losses=[ce]", "seeds=2", "name=<b>bold</b>")
    assert "<h1>&lt;b&gt;bold" in done(titled).files["page"].read_text()


def test_differences_are_paired_t_intervals():
    rng = np.random.default_rng(3)
    rows = []
    for name in ("ce", "ncmi"):
        for seed in range(4):
            scores = dict.fromkeys(("top5", "macro_f1", "cmi", "gamma", "ncmi", "top1_highest"), 0.5)
            rows.append(
                {"loss": name, "seed": seed, **scores, "top1": rng.uniform(), "top1_nearest": float("nan")}
            )
    found = summarise_runs(rows, ["ce", "ncmi"])
    one, other = (np.array([row["top1"] for row in rows if row["loss"] == name]) for name in ("ce", "ncmi"))
    interval = stats.ttest_rel(other, one).confidence_interval(0.95)
    difference = found["differences"]["ncmi"]["top1"]
    assert difference["mean"] == pytest.approx((other - one).mean())
    assert (difference["low"], difference["high"]) == pytest.approx((interval.low, interval.high))
    assert found["losses"]["ncmi"]["top1"]["sd"] == pytest.approx(other.std(ddof=1))
    assert "top1_nearest" not in found["differences"]["ncmi"]
    single = summarise_runs([row for row in rows if row["seed"] == 0], ["ce", "ncmi"])
    assert single["differences"]["ncmi"]["top1"]["low"] is None
    assert "ncmi − ce: top-1" in text_table(found)


def test_in_pieces_and_in_processes_it_is_the_same(whole, image_set, tmp_path):
    _, expected = whole
    job = ("losses=[ce, ncmi_paper]", "seeds=2")
    begun = done(configured(image_set, tmp_path, *job), minutes=0)
    assert begun.notes == ("4 of 4 runs are not finished; the same command resumes.",)
    assert not begun.files
    files = done(configured(image_set, tmp_path, *job, "workers=2")).files
    drop = ("images_per_s",)
    rows = [
        [{k: v for k, v in row.items() if k not in drop} for row in rows_of(f["runs"])]
        for f in (expected.files, files)
    ]
    key = lambda row: (row["loss"], row["seed"])  # noqa: E731
    assert sorted(rows[0], key=key) == sorted(rows[1], key=key)


def test_a_run_that_fails_costs_only_itself(image_set, tmp_path):
    wild = "losses={ce: null, wild: {name: square, square_scale: 1.0e+38, square_target: 1.0e+30}}"
    result = done(configured(image_set, tmp_path, wild))
    assert result.exit_code == 1
    assert len(result.failures) == 1
    assert result.failures[0].startswith("wild, seed 0: Training stopped at epoch 1")
    assert [row["loss"] for row in rows_of(result.files["runs"])] == ["ce"]
    with pytest.raises(TrainingError, match="wild, seed 0"):
        run_images(configured(image_set, tmp_path / "other", wild.replace("ce: null, ", "")))


def test_losses_are_named_in_every_form(image_set, tmp_path):
    config = configured(image_set, tmp_path, "losses=[ce, ncmi, ncmi_log, {name: ncmi, temperature: 2}]")
    assert list(config.losses) == ["ce", "ncmi", "ncmi_log", "ncmi-2"]
    assert config.losses["ncmi"].preset == "default"
    assert config.losses["ncmi_log"].preset == "log"
    assert config.losses["ncmi-2"].temperature == 2
    mapping = configured(image_set, tmp_path, "losses={ncmi_paper: null, warm: {name: ncmi, tau: 2}}")
    assert mapping.losses["ncmi_paper"].preset == "paper"
    assert mapping.losses["warm"].tau == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("losses=[cross]", r"'losses\.cross' .*there is no loss named 'cross'"),
        ("losses={a/b: {name: ce}}", "can't be the name of a loss's folder"),
        ("losses=[]", "losses"),
        ("recipe.epoch=3", "did you mean 'epochs'"),
        ("data.path=null", r"set data\.path"),
    ],
)
def test_wrong_configurations_are_said(image_set, tmp_path, override, message):
    with pytest.raises(InputError, match=message):
        run_images(configured(image_set, tmp_path / "out", override))


def test_torchrun_and_workers_exclude_each_other(image_set, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="workers must be 1 under torchrun"):
        run_images(configured(image_set, tmp_path, "workers=2"))


@pytest.mark.parametrize("name", shipped_configs("images"))
def test_shipped_configurations_are_valid(name):
    config = read_config(ImageJobConfig, find_config(name, "images"))
    assert "ce" in config.losses
    assert next(iter(config.losses)) == "ce"


def test_shipped_image_configurations_are_no_slide_jobs():
    assert set(shipped_configs("images")) >= {
        "cifar100_resnet18",
        "cifar10_resnet18",
        "imagenet_resnet50",
        "cifar100_reduced",
    }
    assert not set(shipped_configs("images")) & set(shipped_configs())


def test_the_script_prints_the_table_and_says_what_is_wrong(image_set, tmp_path, whole, capsys, monkeypatch):
    script = Path(__file__).parents[2] / "pipelines" / "image_classification.py"
    config, _ = whole
    (tmp_path / "job.yaml").write_text("losses: [ce, ncmi_paper]\nseeds: 2\n")
    arguments = [
        str(tmp_path / "job.yaml"),
        *SMALL,
        f"data.path={image_set}",
        "--out",
        str(config.out),
        "--quiet",
    ]
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(script), run_name="__main__")
    assert not done.value.code
    printed = capsys.readouterr().out
    assert "ncmi_paper − ce: top-1" in printed
    assert "summary: " in printed
    spec = importlib.util.spec_from_file_location("image_classification", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(typer.Exit) as ending:
        module.main(
            arguments[0],
            [*arguments[1:-3], "recipe.batch_size=4000"],
            out=config.out,
            quiet=True,
            overwrite=True,
        )
    assert ending.value.exit_code == 2
    assert capsys.readouterr().err.startswith("Error: recipe.batch_size is 4000")
