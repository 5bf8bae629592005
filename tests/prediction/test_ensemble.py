"""Ensembles: what is loaded, what is refused, and that the mean is the mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_ncmi.errors import InputError
from wsi_ncmi.losses import LossOptions, build_loss
from wsi_ncmi.mil import ModelOptions, build_model
from wsi_ncmi.prediction import check_features, load_ensemble, predict_bags, write_attention_geojson
from wsi_ncmi.training.checkpoint import write_trained

FEATURES = {"encoder": "descriptor", "encoder_weights_sha256": "none", "mpp_target": 0.5, "tile_px": 256}


def write_model(folder: Path, seed: int, classes: tuple[str, ...] = ("a", "b"), **features: object) -> None:
    torch.manual_seed(seed)
    options, loss = ModelOptions(hidden=8, attention=4), LossOptions(name="ce")
    aggregator = build_model(options, 6)
    criterion = build_loss(loss, len(classes), aggregator.embedding_width, (5,) * len(classes))
    folder.mkdir(parents=True)
    write_trained(
        folder, aggregator, criterion, classes=classes, model=options, loss=loss,
        class_counts=(5,) * len(classes), extra={"encoder": {**FEATURES, **features}},
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for fold in range(2):
        write_model(tmp_path / "run" / f"fold_{fold}" / "seed_0", fold)
    return tmp_path / "run"


class Bags:
    """Three slides, one without tissue."""

    path = Path("bags")
    slide_ids = ("s1", "s2", "empty")
    width = 6
    lengths = np.array([5, 1, 0])
    encoder = "descriptor"

    def load(self, slide_id: str) -> np.ndarray:
        rng = np.random.default_rng(len(slide_id) + ord(slide_id[-1]))
        return rng.normal(size=(dict(zip(self.slide_ids, self.lengths, strict=True))[slide_id], 6)).astype(
            "float16"
        )

    def embedded_cohort(self, group: str | None = None) -> None:
        return None


def test_the_ensemble_is_the_mean_of_its_members(run: Path) -> None:
    ensemble = load_ensemble(run)
    bag = Bags().load("s1")
    answer = ensemble.predict(bag)
    each = np.stack([member.predict(bag)[0] for member in ensemble.members])
    assert len(each) == 2
    np.testing.assert_allclose(answer.probabilities, each.mean(axis=0), rtol=1e-12)
    assert answer.attention.sum() == pytest.approx(1, abs=1e-5)
    single = load_ensemble(run / "fold_1" / "seed_0")
    np.testing.assert_array_equal(single.predict(bag).probabilities, each[1])


def test_the_table_has_a_row_for_every_slide(run: Path) -> None:
    seen = []
    table = predict_bags(
        load_ensemble(run), Bags(), problems={"broken": "text.svs is no slide"},
        on_slide=lambda slide_id, _: seen.append(slide_id),
    )  # fmt: skip
    assert table["slide_id"].tolist() == ["broken", "empty", "s1", "s2"]
    assert seen == ["s1", "s2"]
    rows = table.set_index("slide_id")
    assert rows.loc["broken", "reason"] == "text.svs is no slide"
    assert "no tissue" in rows.loc["empty", "reason"]
    assert rows.loc["s1", "prediction"] in ("a", "b")
    assert rows.loc["s1", ["p_a", "p_b"]].sum() == pytest.approx(1)
    assert rows.loc["broken", ["p_a", "p_b"]].isna().all()


def test_several_losses_must_be_told_apart(tmp_path: Path) -> None:
    for loss in ("ce", "ncmi"):
        write_model(tmp_path / loss / "fold_0" / "seed_0", 0)
    with pytest.raises(InputError, match=r"several losses \(ce, ncmi\)"):
        load_ensemble(tmp_path)
    assert len(load_ensemble(tmp_path / "ce").members) == 1


def test_no_model_and_models_of_different_tasks_are_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(InputError, match="no trained model"):
        load_ensemble(tmp_path / "nothing")
    write_model(run / "fold_2" / "seed_0", 2, classes=("a", "c"))
    with pytest.raises(InputError, match="other classes or features"):
        load_ensemble(run)


@pytest.mark.parametrize(
    ("key", "value"), [("encoder", "timm:resnet18"), ("mpp_target", 1.0), ("tile_px", 512)]
)
def test_other_features_than_those_of_the_training_are_refused(run: Path, key: str, value: object) -> None:
    ensemble = load_ensemble(run)
    check_features(ensemble, FEATURES)
    with pytest.raises(InputError, match=key):
        check_features(ensemble, {**FEATURES, key: value})


def test_attention_geojson_has_the_geometry_of_the_tiles(tmp_path: Path) -> None:
    coords = np.array([[0, 0], [100, 0], [0, 100]])
    weights = np.array([0.2, 0.5, 0.3], np.float32)
    write_attention_geojson(tmp_path / "a.geojson", coords, (100.5, 99.5), weights)
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert features[1]["geometry"]["coordinates"][0][2] == [200.5, 99.5]
    assert [f["properties"]["measurements"]["attention percentile"] for f in features] == pytest.approx(
        [1 / 3, 1, 2 / 3]
    )
