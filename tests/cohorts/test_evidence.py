"""What the leak audit knows of slides beside their labels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.features.interchange import makers
from wsi_ncmi.cohorts import evidence_of_features, evidence_of_source, evidence_of_thumbnails, open_bag_source
from wsi_ncmi.features.thumbnails import thumbnail_comment
from wsi_ncmi.training.config import EvaluateConfig, EvaluationConfig
from wsi_ncmi.workflows import evaluate


def tissue(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(80, 200, (30, 45, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((450, 300), Image.BICUBIC))


def write_thumbnail(path, pixels, *, comment):
    """As the extraction does: the same grid over every slide."""
    drawn = pixels.copy()
    drawn[::12] = drawn[:, ::12] = (0, 72, 200)
    Image.fromarray(drawn).save(path, "JPEG", **({"comment": thumbnail_comment(pixels)} if comment else {}))


def test_what_is_drawn_on_a_thumbnail_is_not_compared(tmp_path):
    for seed, comment in enumerate((True, True, False)):
        write_thumbnail(tmp_path / f"s{seed}.jpg", tissue(seed), comment=comment)
    found = evidence_of_thumbnails(tmp_path, drawn=True)
    assert set(found.signatures) == {"s0", "s1"}
    assert "s2" in found.notes[0]
    assert set(evidence_of_thumbnails(tmp_path).signatures) == {"s0", "s1", "s2"}  # a user's own pictures
    assert set(evidence_of_thumbnails(tmp_path, slide_ids={"s1"}).signatures) == {"s1"}
    undrawn = evidence_of_thumbnails(tmp_path).signatures["s0"].picture.astype(float)
    assert np.abs(np.diff(undrawn, axis=0)).max() < 60  # no line of the grid


def test_a_folder_of_ours_brings_its_inventory_and_thumbnails(tmp_path):
    folder = tmp_path / "features" / "enc"
    for i in range(3):
        makers.ours(folder, f"s{i}", 5, i)
    (tmp_path / "thumbnails").mkdir()
    for i in range(2):
        write_thumbnail(tmp_path / "thumbnails" / f"s{i}.jpg", tissue(i), comment=True)
    found = evidence_of_features(folder)
    assert set(found.features) == {"s0", "s1", "s2"}
    assert set(found.signatures) == {"s0", "s1"}
    some = evidence_of_source(open_bag_source(folder), slide_ids=("s1", "s2"))
    assert set(some.features) == {"s1", "s2"}
    assert set(some.signatures) == {"s1"}


def test_packed_features_are_hashed_unless_they_are_many(tmp_path):
    path = tmp_path / "bags.npz"
    features = np.arange(60, dtype=np.float16).reshape(15, 4)
    features[10:] = features[:5]
    np.savez(
        path, features=features, lengths=np.array([5, 5, 5], np.int32), slide_id=np.array(["a", "b", "c"])
    )
    source = open_bag_source(path)
    found = evidence_of_source(source)
    assert found.features["a"] == found.features["c"] != found.features["b"]
    many = evidence_of_source(source, most_bytes=100)
    assert many.features == {}
    assert many.notes == ("Features were not compared: reading 0.0 GiB takes long; run 'wsi-ncmi audit'.",)
    assert set(evidence_of_source(source, most_bytes=120).features) == {"a", "b", "c"}


@pytest.mark.parametrize("name", ["train", "run"])
def test_training_refuses_equal_features_in_two_parts(tmp_path, name):
    from wsi_ncmi.core.config import config_from
    from wsi_ncmi.core.errors import InputError
    from wsi_ncmi.training import TrainConfig
    from wsi_ncmi.workflows import train

    def train_with(values, out, **more):
        return train(config_from(TrainConfig, {**values, "out": out, **more}, "the test"))

    lengths = np.full(16, 3, np.int32)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(48, 4)).astype(np.float16)
    ids = np.array([f"s{i}" for i in range(16)])
    label = np.array(["x", "y"] * 8)
    if name == "run":
        features[45:] = features[:3]  # the last slide is the first under another name
    np.savez(
        tmp_path / "bags.npz", features=features, lengths=lengths, slide_id=ids, label=label, case_id=ids
    )
    values = {
        "features": tmp_path / "bags.npz", "losses": ["ce"], "workers": 1, "training": {"epochs": 1},
        "split": {"folds": 2}, "evaluation": {"figures": [], "resamples": 100},
    }  # fmt: skip
    if name == "train":
        files = train_with(values, tmp_path / "out").files
        assert "features (16 slides)" in files["report"].read_text()
        return
    with pytest.raises(InputError, match=r"same content.*--allow-leak"):
        train_with(values, tmp_path / "out")
    files = train_with(values, tmp_path / "out", allow_leak=True).files
    assert "LEAKS" in files["summary"].read_text()
    assert "The same content" in files["report"].read_text()
    # Whoever evaluates that run again is told, too, and so is who compares with it.
    quick = EvaluationConfig(resamples=100, figures=())

    def evaluated(predictions, out, *against):
        return evaluate(
            EvaluateConfig(predictions=predictions, out=out, against=against, evaluation=quick)
        ).files

    again = evaluated(tmp_path / "out", tmp_path / "again")
    assert "LEAKS" in again["summary"].read_text()
    plain = tmp_path / "plain.csv"
    plain.write_bytes((tmp_path / "out" / "predictions.csv").read_bytes())
    assert "LEAKS" not in evaluated(plain, tmp_path / "plain")["summary"].read_text()
    (tmp_path / "run.json").write_text("{}")  # not ours
    against = evaluated(plain, tmp_path / "both", tmp_path / "out")
    assert "> out: This split LEAKS" in against["summary"].read_text()
