"""Training on one vector a slide or patient, from files of other tools to predictions and a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil import model_config
from wsi_ncmi.prediction import ExportConfig
from wsi_ncmi.prediction.bundle import load_bundle
from wsi_ncmi.training import EvaluationConfig, TrainConfig, TrainingConfig, prepare_data
from wsi_ncmi.workflows import export, train

D, CLASSES = 6, ("a", "b")
QUICK = TrainingConfig(epochs=15, batch_size=4, device="cpu", threads=1)


def vectors(folder: Path, ids, level: str = "slide", *, empty: str = "") -> Path:
    """STAMP's files; the first number tells the class, which the id ends in."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ids:
        vector = rng.normal(0, 1, D).astype(np.float32)
        vector[0] += 8 * CLASSES.index(name[-1])
        with h5py.File(folder / f"{name}.h5", "w") as handle:
            handle["feats"] = vector[:0] if name == empty else vector
            handle.attrs.update({"encoder": "titan", "feat_type": level})
    return folder


def labels(path: Path, patients: int = 20, slides: int = 2) -> Path:
    rows = [
        {
            "slide_id": f"s{slide}_{p:02d}{CLASSES[p % 2]}",
            "case_id": f"P{p:02d}{CLASSES[p % 2]}",
            "label": CLASSES[p % 2],
        }
        for p in range(patients)
        for slide in range(slides)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def config_of(tmp_path: Path, level: str = "slide", **settings) -> TrainConfig:
    table = pd.read_csv(labels(tmp_path / "labels.csv"))
    ids = table["slide_id" if level == "slide" else "case_id"].unique()
    values = {
        "features": vectors(tmp_path / "v", ids, level), "labels": str(tmp_path / "labels.csv"),
        "out": tmp_path / "run", "model": model_config("linear"), "training": QUICK, "workers": 1,
        "evaluation": EvaluationConfig(resamples=100, figures=()),
    }  # fmt: skip
    return TrainConfig(**values | settings)


def test_a_run_on_vectors_ends_in_report_and_bundle(tmp_path) -> None:
    config = config_of(tmp_path)
    config = replace(config, split=replace(config.split, folds=2))
    result = train(config)
    predicted = pd.read_csv(result.files["predictions"])
    assert len(predicted) == 40
    assert (predicted["label"] == predicted["prediction"]).mean() > 0.8
    page = result.files["report"].read_text(encoding="utf-8")
    assert "The features are one vector a slide: there are no tiles to show." in page
    export(ExportConfig(run=config.out, out=tmp_path / "bundle", features=config.features, torchscript=True))
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.features == {"name": "titan", "level": "slide"}
    assert bundle.ood is not None
    vector = np.zeros((1, D), np.float32)
    vector[0, 0] = 8.0
    assert bundle.predict(vector).prediction == "b"
    assert bundle.predict(vector[0]).prediction == "b"
    assert "one vector a slide" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_patients_vectors_are_joined_by_case(tmp_path, caplog) -> None:
    config = config_of(tmp_path, "patient")
    with caplog.at_level("INFO", "wsi_ncmi"):
        data = prepare_data(config)
    assert "joined with the labels by case_id" in caplog.text
    assert len(data.cohort.rows) == 20
    assert all(row.slide_id == row.case_id for row in data.cohort.rows)
    assert data.of_slides is not None
    assert len(data.of_slides[1].rows) == 40  # the audit looks at slides
    placed = [slide for fold in data.splits.folds for slide in fold.test]
    assert sorted(placed) == sorted(data.source.slide_ids)


def test_patients_vectors_take_a_table_of_patients_and_a_split_of_slides(tmp_path) -> None:
    config = config_of(tmp_path, "patient")
    data = prepare_data(config)
    lines = [{"train": "", "val": "", "test": ""}]
    table = pd.read_csv(tmp_path / "labels.csv")
    part = {
        p: ("test", "val", "train", "train")[i // 2 % 4]
        for i, p in enumerate(sorted(table["case_id"].unique()))
    }
    by = {name: [s for s, c in zip(table["slide_id"], table["case_id"], strict=True) if part[c] == name]
          for name in ("train", "val", "test")}  # fmt: skip
    lines = pd.DataFrame({name: pd.Series(ids) for name, ids in by.items()})
    lines.to_csv(tmp_path / "splits_0.csv")
    (fold,) = prepare_data(replace(config, splits=tmp_path / "splits_0.csv")).splits.folds
    assert set(fold.test) == {case for case, name in part.items() if name == "test"}
    patients = (
        table.drop_duplicates("case_id").drop(columns="slide_id").rename(columns={"case_id": "slide_id"})
    )
    patients.to_csv(tmp_path / "patients.csv", index=False)
    split = replace(config.split, group="slide_id")
    alone = prepare_data(replace(config, labels=str(tmp_path / "patients.csv"), split=split))
    assert alone.splits.folds == data.splits.folds


def test_a_patient_of_two_classes_is_refused(tmp_path) -> None:
    config = config_of(tmp_path, "patient")
    table = pd.read_csv(tmp_path / "labels.csv")
    table.loc[0, "label"] = "b"
    table.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(InputError, match="patient 'P00a' have the labels"):
        prepare_data(config)


def test_a_slide_without_tiles_is_named(tmp_path) -> None:
    config = config_of(tmp_path)
    with h5py.File(config.features / "s0_00a.h5", "w") as handle:
        handle["feats"] = np.empty(0, np.float32)
        handle.attrs.update({"encoder": "titan", "feat_type": "slide"})
    (lost,) = prepare_data(config).unmatched
    assert (lost.slide_id, "no tile" in lost.reason) == ("s0_00a", True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"training": replace(QUICK, max_instances=50)},
            "training.max_instances has no effect.*one vector a slide",
        ),
        ({"model": model_config("abmil", mixup=0.5)}, "model.mixup mixes the tiles"),
    ],
)
def test_settings_of_bags_are_refused(tmp_path, settings, words) -> None:
    with pytest.raises(InputError, match=words):
        prepare_data(config_of(tmp_path, **settings))


def test_attention_over_one_vector_is_named(tmp_path, caplog) -> None:
    prepare_data(config_of(tmp_path, model=model_config("abmil")))
    assert "'abmil' has nothing to choose from" in caplog.text
    caplog.clear()
    config = config_of(tmp_path / "p", bag="patient") if (tmp_path / "p").mkdir() is None else None
    prepare_data(replace(config, model=model_config("abmil", mixup=0.5)))  # a patient has several vectors
    assert "nothing to choose from" not in caplog.text
