"""The study on many classes: its rounds, its references, its floor, and its two commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from research.class_means_guard import main as guard
from research.long_tail_forms import main as train_forms
from research.loss_study import long_tail
from research.loss_study.job import study_stage
from research.loss_study.regimes import REGIMES
from research.loss_study.results import best_settings, choose_settings, chosen_settings
from research.loss_study.run import open_study_cohort
from research.loss_study.settings import LONG_TAIL_GRID, REFERENCES
from wsi_ncmi.core.errors import InputError

COLUMNS = ("stage", "cohort", "regime", "loss", "setting", "fold", "seed", "macro_f1")


def _write(out: Path, rows: list[tuple[str, str, str, float]]) -> None:
    full = [("tune", cohort, "full", loss, setting, 0, 0, score) for cohort, loss, setting, score in rows]
    pd.DataFrame(full, columns=COLUMNS).to_csv(out / "tune.csv", index=False)


def test_the_second_round_has_the_best_of_the_first_and_choice_those_of_both(tmp_path):
    names = {loss: [setting.name for setting in LONG_TAIL_GRID[loss]] for loss in ("ncmi", "ce")}
    first = [("sites", loss, name, 0.1 * n) for loss in names for n, name in enumerate(names[loss])]
    _write(tmp_path, first)
    best = best_settings(tmp_path, "sites", 2)
    assert best == {(loss, name) for loss in names for name in names[loss][-2:]}
    last = {loss: enumerate(of[-2:]) for loss, of in names.items()}
    second = [("parts", loss, name, 0.5 - 0.3 * n) for loss, of in last.items() for n, name in of]
    _write(tmp_path, first + second)
    chosen = json.loads(choose_settings(tmp_path).read_text())
    # (.4 + .5)/2 against (.5 + .2)/2; what was left out after the first round is no choice.
    assert {loss: of["setting"] for loss, of in chosen.items()} == {loss: names[loss][-2] for loss in names}
    assert all(len(of["macro_f1"]) == 2 for of in chosen.values())
    _write(tmp_path, first + second[:3])
    with pytest.raises(InputError, match="ce has fewer settings with all runs"):
        choose_settings(tmp_path)
    _write(tmp_path, first[:-1])
    with pytest.raises(InputError, match="Not every loss has all its settings on 'sites'"):
        best_settings(tmp_path, "sites", 2)


def test_confirmation_has_the_best_rivals_the_ablations_and_the_references(tmp_path):
    scores = {"ncmi": 0.5, "ce": 0.1, "focal": 0.3, "ldam": 0.4, "square": 0.2, "ncmi_code_words": 0.1}
    _write(tmp_path, [("sites", loss, LONG_TAIL_GRID[loss][0].name, score) for loss, score in scores.items()])
    choose_settings(tmp_path)
    found = [setting.loss for setting in chosen_settings(tmp_path, rivals=2)]
    assert found == ["ncmi", "ncmi_code_words", "ce", "focal", "ldam", *(s.loss for s in REFERENCES)]
    assert len(chosen_settings(tmp_path)) == len(scores)


@pytest.fixture
def packed(tmp_path) -> Path:
    """120 patients of two classes that the mean tile tells nearly always."""
    rng = np.random.default_rng(0)
    label = np.array(["alpha", "beta"])[np.arange(120) % 2]
    features = rng.normal(size=(360, 5))
    features[:, 0] += np.repeat(np.arange(120) % 2, 3) * 3
    np.savez(
        tmp_path / "bags.npz", features=features.astype(np.float16), lengths=np.full(120, 3), label=label,
        slide_id=np.array([f"s{i:03d}" for i in range(120)]),
        case_id=np.array([f"c{i:03d}" for i in range(120)]),
    )  # fmt: skip
    return tmp_path / "bags.npz"


def test_the_floor_is_logistic_regression_and_a_rate_is_told_in_the_name(packed, tmp_path):
    _write(tmp_path, [("bags", loss, LONG_TAIL_GRID[loss][0].name, 0.5) for loss in ("ncmi", "ce")])
    choose_settings(tmp_path)
    study_stage(
        "confirm", tmp_path, {"bags": str(packed)}, regimes=["full"], folds=[0], seeds=[0], rivals=1,
        losses=["floor", "ce"], rate=1e-3,
    )  # fmt: skip
    rows = pd.read_csv(tmp_path / "confirm.csv", dtype={"predicted": str}).set_index("loss")
    assert rows.loc["ce", "setting"].endswith("lr=0.001 decay=0.01")
    data = open_study_cohort(str(packed))
    fold, by = data.outer.folds[0], data.cohort.by_slide
    bags = np.load(packed)
    of_tiles = bags["features"].reshape(120, 3, 5).mean(axis=1, dtype=np.float32)
    means = dict(zip(bags["slide_id"], of_tiles, strict=True))
    x, y = ([means[s] for s in fold.train], [by[s].label for s in fold.train])
    plain = LogisticRegression().fit(x, y).predict([means[s] for s in fold.test])
    expected = f1_score([by[s].label for s in fold.test], plain, average="macro")
    assert rows.loc["floor", "macro_f1"] == pytest.approx(expected, abs=0.06)


def test_the_guard_decides_twice_and_goes_on(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["guard", str(tmp_path / "guard.csv"), f"bags={packed}"])
    monkeypatch.setattr("research.class_means_guard.REGIMES", {"full": REGIMES["full"]})
    guard()
    rows = pd.read_csv(tmp_path / "guard.csv")
    assert len(rows) == 5
    assert rows[["with", "without"]].to_numpy().min() > 0.6
    before = (tmp_path / "guard.csv").read_bytes()
    guard()
    assert (tmp_path / "guard.csv").read_bytes() == before
    assert "all:" in capsys.readouterr().out


def test_forms_of_its_own_learn_and_go_on(packed, tmp_path, monkeypatch):
    wanted = ["q 0 to 0.3", "halves, CMI within", "most attended tile"]
    arguments = ["forms", str(tmp_path / "forms.csv"), f"bags={packed}", "--forms"]
    for forms in (wanted[:1], wanted):
        monkeypatch.setattr("sys.argv", [*arguments, *forms])
        train_forms()
    rows = pd.read_csv(tmp_path / "forms.csv")
    assert rows["form"].tolist() == wanted
    assert rows["macro_f1"].min() > 0.8


def test_the_two_commands_say_what_is_missing_and_where_they_stopped(tmp_path, capsys):
    assert long_tail.main(["prepare", str(tmp_path / "none"), str(tmp_path / "work")]) == 2
    assert "unpack.py does not exist" in capsys.readouterr().err
    assert long_tail.main(["run", str(tmp_path), str(tmp_path / "out"), "--minutes", "0"]) == 1
    assert long_tail.main(["run", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "tcga_ot.npz do" in capsys.readouterr().err
