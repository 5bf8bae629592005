"""The study of the losses: its parts, its table, and a whole small study from exploration to statistics."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from research.loss_study import StudyRequest, run_study, study_stage
from research.loss_study.__main__ import main
from research.loss_study.regimes import REGIMES, prepare_parts
from research.loss_study.results import choose_settings, chosen_settings, write_tables
from research.loss_study.run import open_study_cohort, predicted_classes
from research.loss_study.settings import (
    ABLATIONS,
    GRID,
    LONG_TAIL_GRID,
    ablation_settings,
    exploration_settings,
    lead_settings,
    model_settings,
    sensitivity_settings,
)
from research.loss_study.statistics import Cells, compare_with_rivals
from research.loss_study.table import StudyTable
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import build_loss, list_losses
from wsi_ncmi.mil import model_config
from wsi_ncmi.training import TrainingConfig

SMALL = {"model": model_config(hidden=8, attention=4), "training": TrainingConfig(epochs=1, device="cpu")}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """150 patients of three classes (55/30/15 %), some with two slides, the class in one tile of a bag."""
    rng = np.random.default_rng(0)
    label = np.array(["alpha"] * 83 + ["beta"] * 45 + ["gamma"] * 22)
    case = np.array([f"case_{i:03d}" for i in range(150)])
    twice = rng.choice(150, 20, replace=False)
    label, case = np.concatenate([label, label[twice]]), np.concatenate([case, case[twice]])
    lengths = rng.integers(2, 6, len(label))
    features = rng.normal(size=(lengths.sum(), 6))
    features[np.cumsum(lengths) - 1, np.unique(label, return_inverse=True)[1]] += 4
    path = tmp_path_factory.mktemp("study") / "bags.npz"
    np.savez(
        path, features=features.astype(np.float16), lengths=lengths, label=label, case_id=case,
        slide_id=np.array([f"slide_{i:03d}" for i in range(len(label))]),
    )  # fmt: skip
    return path


def test_the_grid_gives_every_loss_the_same_budget():
    assert set(LONG_TAIL_GRID) == {*(info.name for info in list_losses()), *ABLATIONS}
    assert set(LONG_TAIL_GRID) - set(GRID) == {"logit_adjusted", "ldam", "cb_focal", "ncmi_code_words"}
    assert {len(settings) for settings in GRID.values()} == {6}
    assert {len(settings) for settings in LONG_TAIL_GRID.values()} == {6}
    for settings in (
        *GRID.values(),
        *LONG_TAIL_GRID.values(),
        exploration_settings(),
        sensitivity_settings(),
        ablation_settings(),
        lead_settings(),
        model_settings(),
    ):
        assert len(settings) == len({(setting.loss, setting.name) for setting in settings})
        for setting in settings:
            build_loss(setting.options, 3, 8, [5, 4, 3])


def test_the_ablation_is_the_generalised_cross_entropy_of_a_plain_softmax():
    torch.manual_seed(0)
    z, y = torch.randn(7, 8), torch.arange(7) % 3
    for setting in GRID["generalised_ce"]:
        criterion, q = build_loss(setting.options, 3, 8, [5, 4, 3]), setting.options.power
        own = criterion.head(z)[:, :3].softmax(dim=1).gather(1, y[:, None])
        assert criterion(z, y).item() == pytest.approx(((1 - own**q) / q).mean().item(), rel=1e-5)


def test_the_sampler_of_a_setting_is_the_one_that_trains(packed, tmp_path):
    even = replace(GRID["ce"][0], name="even", sampler="class_balanced")
    request = StudyRequest(
        features={"bags": str(packed)}, out=tmp_path, settings=[GRID["ce"][0], even], regimes=("imbalanced",),
        folds=(0,), **SMALL,
    )  # fmt: skip
    run_study(request)
    table = pd.read_csv(tmp_path / "tune.csv").set_index("setting")
    assert table.loc["even", "nll"] != table.loc[GRID["ce"][0].name, "nll"]


def test_regimes_change_training_and_validation_and_never_the_test(packed):
    data = open_study_cohort(str(packed))
    cohort = data.cohort
    fold = data.outer.folds[0]
    cases = {s: cohort.by_slide[s].case_id for s in cohort.slide_ids}
    full = prepare_parts(cohort, fold, REGIMES["full"], 0)
    assert (full.train.slide_ids, full.validation.slide_ids) == (fold.train, fold.validation)
    truth = dict(zip(full.train.slide_ids, full.train.y.tolist(), strict=True))
    for name, regime in REGIMES.items():
        parts, again = (prepare_parts(cohort, fold, regime, 3) for _ in range(2))
        assert parts.train.slide_ids == again.train.slide_ids
        assert np.array_equal(parts.train.y, again.train.y)
        assert parts.test.slide_ids == fold.test
        assert [cohort.classes[i] for i in parts.test.y] == [cohort.by_slide[s].label for s in fold.test]
        assert set(parts.train.y) == set(parts.validation.y) == {0, 1, 2}
        kept = {cases[s] for s in parts.train.slide_ids}
        # A patient is kept with all slides or not at all.
        assert {s for s in fold.train if cases[s] in kept} == set(parts.train.slide_ids)
        wrong = sum(truth[s] != y for s, y in zip(parts.train.slide_ids, parts.train.y.tolist(), strict=True))
        assert wrong == (round(0.2 * len(fold.train)) if name == "noise_20" else 0)
        if name == "patients_25":
            assert len(kept) == pytest.approx(0.25 * len({cases[s] for s in fold.train}), abs=2)
        if name == "imbalanced":
            patients = pd.Series({cases[s]: cohort.by_slide[s].label for s in parts.train.slide_ids})
            shares = patients.value_counts(normalize=True)
            assert shares.to_dict() == pytest.approx({"alpha": 0.64, "beta": 0.29, "gamma": 0.07}, abs=0.03)
    other = prepare_parts(cohort, fold, REGIMES["noise_20"], 4)
    assert not np.array_equal(other.train.y, prepare_parts(cohort, fold, REGIMES["noise_20"], 3).train.y)


def test_inner_folds_hold_no_test_slide_of_their_fold(packed):
    data = open_study_cohort(str(packed))
    for outer, inner in zip(data.outer.folds, data.inner.folds, strict=True):
        assert set(inner.train) | set(inner.validation) | set(inner.test) == {*outer.train, *outer.validation}
        by_part = [
            {data.cohort.by_slide[s].case_id for s in inner.part(p)} for p in ("train", "validation", "test")
        ]
        assert all(a.isdisjoint(b) for a, b in pairwise([*by_part, by_part[0]]))


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Path, Path, Path]:
    """240 patients of 12 classes at 24 sites; published parts; the sites."""
    rng = np.random.default_rng(1)
    n, folder = 240, tmp_path_factory.mktemp("many")
    label = np.arange(n) % 12
    features = rng.normal(size=(3 * n, 12))
    features[3 * np.arange(n), label] += 8
    slide_id = np.array([f"slide_{i:03d}" for i in range(n)])
    np.savez(
        folder / "bags.npz", features=features.astype(np.float16), lengths=np.full(n, 3), slide_id=slide_id,
        label=np.array([f"class_{c:02d}" for c in label]), case_id=np.array([f"case_{i:03d}" for i in range(n)]),
    )  # fmt: skip
    part = np.array(["train"] * 7 + ["val"] * 2 + ["test"])[np.arange(n) // 12 % 10]
    pd.DataFrame({"slide_id": slide_id, "part": part}).to_csv(folder / "parts.csv", index=False)
    site = [f"s{i}" for i in rng.integers(0, 24, n)]
    pd.DataFrame({"slide_id": slide_id, "source_site": site}).to_csv(folder / "sites.csv", index=False)
    return folder / "bags.npz", folder / "parts.csv", folder / "sites.csv"


def test_published_parts_are_one_outer_fold_with_all_inner_ones(many):
    data = open_study_cohort(f"{many[0]},{many[1]}")
    (outer,) = data.outer.folds
    assert (len(outer.train), len(outer.validation), len(outer.test)) == (168, 48, 24)
    assert len(data.inner.folds) == 5
    assert {s for fold in data.inner.folds for s in fold.test} == {*outer.train, *outer.validation}


def test_no_site_is_in_two_parts(many):
    data = open_study_cohort(f"{many[0]},{many[2]}")
    site = pd.read_csv(many[2], index_col="slide_id")["source_site"]
    assert len(data.outer.folds) == len(data.inner.folds) == 3
    for fold in (*data.outer.folds, *data.inner.folds):
        parts = [set(site[list(fold.part(name))]) for name in ("train", "validation", "test")]
        assert all(a.isdisjoint(b) for a, b in pairwise([*parts, parts[0]]))


def test_two_digits_stand_for_each_of_many_classes(many, tmp_path):
    """And the macro-F1 of a run follows from them."""
    from sklearn.metrics import f1_score

    place = f"{many[0]},{many[1]}"
    fast = replace(LONG_TAIL_GRID["logit_adjusted"][0], learning_rate=0.05)
    training = TrainingConfig(epochs=12, device="cpu")
    request = StudyRequest(
        features={"many": place}, out=tmp_path, settings=[fast], regimes=("full",), folds=(0,), training=training
    )  # fmt: skip
    result = run_study(request)
    table = pd.read_csv(result.files["table"], dtype={"predicted": str})
    data = open_study_cohort(place)
    slide_ids = data.inner.folds[0].test
    truth = [data.cohort.class_index[data.cohort.by_slide[s].label] for s in slide_ids]
    assert len(table) == 1
    for row in table.itertuples():
        predicted = predicted_classes(row.predicted, len(truth), 12)
        expected = f1_score(truth, predicted, labels=range(12), average="macro", zero_division=0)
        assert row.macro_f1 == pytest.approx(expected, abs=1e-6)
    cells = Cells(table, {"many": data}, "tune")
    best = table.loc[table["macro_f1"].idxmax()]
    assert cells.macro_f1("logit_adjusted", best["setting"], "many", "full") == pytest.approx(
        best["macro_f1"]
    )
    assert best["macro_f1"] > 0.5  # classes that stand apart, of which the last two have two digits
    with pytest.raises(InputError, match="other features"):
        predicted_classes("0101", 3, 12)


def test_the_table_survives_a_torn_line(tmp_path):
    columns = ("a", "b", "value")
    table = StudyTable(tmp_path / "t.csv", ("a", "b"), columns)
    table.append({"a": "x, y", "b": 1, "value": 0.5})
    with table.path.open("ab") as handle:
        handle.write(b"z,2,0.")
    again = StudyTable(table.path, ("a", "b"), columns)
    assert again.done == {("x, y", "1")}
    again.append({"a": "z", "b": 2, "value": 0.25})
    assert pd.read_csv(table.path)["value"].tolist() == [0.5, 0.25]
    with pytest.raises(InputError, match="other columns"):
        StudyTable(table.path, ("a",), ("a", "c"))


def test_a_study_from_tuning_to_statistics(packed, tmp_path):
    settings = [*GRID["ncmi"][:2], *GRID["ce"][:2]]
    request = StudyRequest(
        features={"bags": str(packed)}, out=tmp_path, settings=settings, regimes=("full", "imbalanced"), folds=(0, 1),
        minutes=0.0, **SMALL,
    )  # fmt: skip
    first = run_study(request)
    assert first.notes
    assert "are left" in first.notes[0]
    result = run_study(replace(request, minutes=None))
    assert not result.failures
    assert not result.notes
    table = pd.read_csv(result.files["table"], dtype={"predicted": str})
    assert len(table) == 4 * 2 * 2
    assert not table.duplicated(["loss", "setting", "regime", "fold", "seed"]).any()
    # The macro-F1 of a run follows from its digits and the labels.
    data = open_study_cohort(str(packed))
    cells = Cells(table, {"bags": data}, "tune")
    from sklearn.metrics import f1_score

    for row in table.itertuples():
        truth = [
            data.cohort.class_index[data.cohort.by_slide[s].label] for s in data.inner.folds[row.fold].test
        ]
        digits = [int(digit) for digit in row.predicted]
        expected = f1_score(truth, digits, labels=[0, 1, 2], average="macro", zero_division=0)
        assert row.macro_f1 == pytest.approx(expected, abs=1e-6)
    pooled = table[
        (table["loss"] == "ce") & (table["setting"] == settings[2].name) & (table["regime"] == "full")
    ]
    truth = [
        data.cohort.class_index[data.cohort.by_slide[s].label]
        for fold in pooled["fold"]
        for s in data.inner.folds[fold].test
    ]
    digits = [int(d) for text in pooled["predicted"] for d in text]
    assert cells.macro_f1("ce", settings[2].name, "bags", "full") == pytest.approx(
        f1_score(truth, digits, labels=[0, 1, 2], average="macro", zero_division=0)
    )
    chosen = json.loads(choose_settings(tmp_path).read_text())
    best = table.groupby(["loss", "setting"])["macro_f1"].mean()
    assert {name: value["setting"] for name, value in chosen.items()} == {
        name: best[name].idxmax() for name in ("ncmi", "ce")
    }
    confirm = replace(
        request, stage="confirm", settings=chosen_settings(tmp_path), seeds=(0, 1), minutes=None
    )
    run_study(confirm)
    files = write_tables(tmp_path, {"bags": str(packed)})
    summary = pd.read_csv(files["summary"])
    assert len(summary) == 4
    assert set(summary["runs"]) == {4}
    statistics = json.loads(files["statistics"].read_text())
    assert statistics["strongest_rival"] == "ce"
    mean = statistics["differences"]["ce"]["mean"]
    by = summary.groupby("loss")["macro_f1"].mean()
    assert mean["value"] == pytest.approx(by["ncmi"] - by["ce"], abs=1e-6)
    assert mean["ci_low"] <= mean["value"] <= mean["ci_high"]
    runs = statistics["differences"]["ce"]["runs"]
    assert runs["wins"] + runs["ties"] + runs["losses"] == 8


def test_statistics_against_known_predictions(packed):
    """A loss that is always right beats one that always names the first class by what counting says."""
    data = open_study_cohort(str(packed))
    rows = []
    for fold, parts in enumerate(data.outer.folds):
        truth = "".join(str(data.cohort.class_index[data.cohort.by_slide[s].label]) for s in parts.test)
        for seed in (0, 1):
            for loss, digits in (("ncmi", truth), ("ce", "0" * len(truth)), ("focal", "1" * len(truth))):
                rows.append(("bags", "full", loss, "s", fold, seed, digits, 1.0 * (loss == "ncmi")))
    table = pd.DataFrame(
        rows, columns=["cohort", "regime", "loss", "setting", "fold", "seed", "predicted", "macro_f1"]
    )
    cells = Cells(table, {"bags": data}, "confirm")
    found = compare_with_rivals(cells, np.random.default_rng(0), replicates=50)
    assert found["strongest_rival"] == "ce"
    share = np.mean([row.label == "alpha" for row in data.cohort.rows])
    expected = 1 - 2 * share / (1 + share) / 3
    assert found["differences"]["ce"]["mean"]["value"] == pytest.approx(expected)
    assert found["differences"]["ce"]["runs"]["wins"] == 10
    missing = Cells(table[~((table["loss"] == "ce") & (table["seed"] == 1))], {"bags": data}, "confirm")
    with pytest.raises(InputError, match="lacks ce"):
        compare_with_rivals(missing, np.random.default_rng(0), replicates=2)
    with pytest.raises(InputError, match="other features"):
        Cells(table.assign(predicted="01"), {"bags": data}, "confirm")


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "ncmi"


@pytest.mark.parametrize("stage", ["tune", "sensitivity", "ablation", "confirm"])
def test_the_published_tables_are_continued(packed, tmp_path, stage):
    """Version 0.1 described their settings with the keys of every loss and every aggregator."""
    for name in (f"{stage}.json", f"{stage}.csv", "chosen.json"):
        shutil.copy(RESULTS / name, tmp_path)
    rows = (tmp_path / f"{stage}.csv").read_text()
    result = study_stage(
        stage, tmp_path, {"rcc": str(packed)}, folds=[0], seeds=[0], regimes=["full"], minutes=0
    )
    assert result.exit_code == 0
    assert not result.notes
    assert (tmp_path / f"{stage}.csv").read_text() == rows


def test_a_stage_from_the_shell(packed, tmp_path, capsys):
    command = ["explore", str(tmp_path), f"bags={packed}", "--regimes", "full", "--losses", "weighted_ce"]
    assert main([*command, "--folds", "0"]) == 0
    assert f"table: {tmp_path / 'explore.csv'}" in capsys.readouterr().out
    assert main([*command, "--model", "none"]) == 2
    assert main([*command, "--losses", "x"]) == 2
    assert "has no loss 'x'" in capsys.readouterr().err


def test_what_is_wrong_is_named(packed, tmp_path):
    request = StudyRequest(features={"bags": str(packed)}, out=tmp_path, settings=[GRID["ce"][0]], **SMALL)
    with pytest.raises(InputError, match="no stage 'tuna'"):
        run_study(replace(request, stage="tuna"))
    with pytest.raises(InputError, match="no regime 'half'"):
        run_study(replace(request, regimes=("half",)))
    with pytest.raises(InputError, match="do not exist"):
        run_study(replace(request, features={"x": str(tmp_path / "no.npz")}))
    with pytest.raises(InputError, match="tune' first"):
        choose_settings(tmp_path)
    with pytest.raises(InputError, match="'choose' first"):
        study_stage("confirm", tmp_path, {"bags": str(packed)})
    with pytest.raises(InputError, match="at least one cohort"):
        study_stage("tune", tmp_path, {})
    with pytest.raises(InputError, match="has no loss 'x'"):
        study_stage("tune", tmp_path, {"bags": str(packed)}, losses=["x"])
    run_study(replace(request, regimes=("full",), folds=(0,)))
    changed = replace(request, training=TrainingConfig(epochs=2, device="cpu"))
    with pytest.raises(InputError, match="training differs"):
        run_study(changed)


@pytest.mark.real_data
def test_real_bags_in_regimes(real_data, tmp_path):
    folder = real_data / "tcga_bags"
    request = StudyRequest(
        features={name: str(folder / f"tcga_{name}.npz") for name in ("rcc", "nsclc")}, out=tmp_path,
        stage="explore", settings=[exploration_settings()[5]], folds=(0,), training=TrainingConfig(epochs=1),
        regimes=("full", "imbalanced", "noise_20"),
    )  # fmt: skip
    result = run_study(request)
    assert not result.failures
    table = pd.read_csv(result.files["table"]).set_index(["cohort", "regime"])
    assert len(table) == 6
    assert table.loc[("rcc", "full"), "auroc_macro_ovr"] > 0.9
    assert table.loc[("nsclc", "full"), "auroc_macro_ovr"] > 0.75
    assert open_bag_source(folder / "tcga_rcc.npz").width == 192
