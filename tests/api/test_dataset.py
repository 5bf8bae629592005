"""Features and labels for a loop of one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from wsi_ncmi import FeatureDataset, build_model, collate
from wsi_ncmi.cohorts import Fold, Splits, read_labels
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.slides.base import Level
from wsi_ncmi.slides.mpp import Mpp
from wsi_ncmi.tiling import GridConfig, TileGrid

SIZES = {"s1": 4, "s2": 7, "s3": 1, "s4": 3}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Four slides in one file, with their labels."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("features") / "bags.npz"
    np.savez(
        path,
        features=rng.normal(size=(sum(SIZES.values()), 5)).astype(np.float16),
        lengths=np.array(list(SIZES.values())),
        slide_id=np.array(list(SIZES)),
        case_id=np.array(["p1", "p1", "p2", "p3"]),
        label=np.array(["b", "a", "b", "a"]),
    )
    return path


def test_items_are_features_and_the_number_of_the_class(packed):
    dataset = FeatureDataset(packed)
    assert dataset.slide_ids == tuple(SIZES)
    assert (dataset.classes, dataset.labels) == (("a", "b"), (1, 0, 1, 0))
    assert dataset.case_ids == ("p1", "p1", "p2", "p3")
    features, label = dataset[1]
    assert features.shape == (7, 5)
    assert (features.dtype, label) == (torch.float32, 0)
    assert torch.equal(features, torch.from_numpy(np.load(packed)["features"][4:11]).float())
    assert repr(dataset) == "<FeatureDataset 4 slides × 5 features: a 2, b 2>"


def test_batches_are_what_a_model_takes(packed):
    dataset = FeatureDataset(packed)
    model = build_model("abmil", dataset.in_features, 2).eval()
    loader = DataLoader(dataset, batch_size=3, collate_fn=collate, num_workers=0)
    found = torch.cat([model(batch.features, lengths=batch.lengths) for batch in loader])
    alone = torch.cat([model(features) for features, _ in dataset])
    torch.testing.assert_close(found, alone)
    features, lengths, labels = next(iter(loader))
    assert features.shape == (3, 7, 5)
    assert (lengths.tolist(), labels.tolist()) == ([4, 7, 1], [1, 0, 1])


def test_labels_come_from_a_table_or_a_mapping(packed, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("slide_id,label\ns1,x\ns3.svs,y\n")
    dataset = FeatureDataset(packed, table)
    assert (dataset.slide_ids, dataset.classes, dataset.labels) == (("s1", "s3"), ("x", "y"), (0, 1))
    assert dataset.case_ids == ()
    named = FeatureDataset(packed, {"s3": "y", "s1": "x", "s2": "y"}, classes=["y", "x"])
    assert (named.slide_ids, named.labels) == (("s1", "s2", "s3"), (1, 0, 0))
    part = FeatureDataset(packed, slide_ids=["s4", "s1"])
    assert (part.slide_ids, part.labels, part.case_ids) == (("s4", "s1"), (0, 1), ("p3", "p1"))


def test_without_labels_an_item_has_the_slide(packed, tmp_path):
    bare = tmp_path / "bare.npz"
    content = {key: value for key, value in np.load(packed).items() if key not in ("label", "case_id")}
    np.savez(bare, **content)
    dataset = FeatureDataset(bare)
    assert dataset[0][1] == "s1"
    assert collate([dataset[0], dataset[1]]).labels == ["s1", "s2"]


WRONG = {
    "no folder": (("missing",), {}, "no file or folder of features missing"),
    "no path": ((3,), {}, "given by the path"),
    "a class": (("FILE", {"s1": "x"}), {"classes": ["a", "b"]}, "class 'x' is not among"),
    "a slide": (("FILE", {"s9": "x"}), {}, "no features of slide 's9'"),
    "a part": (("FILE",), {"slide_ids": ["s9"]}, "no slide 's9'"),
    "no table": (("FILE", "labels.csv"), {}, "labels.csv"),
    "a class twice": (("FILE",), {"classes": ["a", "b", "a"]}, "each once, got"),
    "classes in one text": (("FILE",), {"classes": "ab"}, "each once, got 'ab'"),
    "no labels": (("FILE", [0, 1]), {}, "Labels are the path of a table, or slide id"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_input_is_one_sentence(fault, packed):
    arguments, settings, message = WRONG[fault]
    with pytest.raises(InputError, match=message):
        FeatureDataset(*(packed if given == "FILE" else given for given in arguments), **settings)


def test_a_batch_of_two_encoders_is_told():
    with pytest.raises(InputError, match="of one width"):
        collate([(torch.zeros(1, 3), 0), (torch.zeros(1, 4), 0)])
    with pytest.raises(InputError, match="at least one bag"):
        collate([])
    for items in ([torch.zeros(1, 3)], [(torch.zeros(1, 3), 0, 1)]):
        with pytest.raises(InputError, match="pairs"):
            collate(items)
    with pytest.raises(InputError, match="A bag of a batch must be"):
        collate([("slide", 0)])


def test_numbers_of_every_kind_are_labels():
    for label in (1, np.int64(1), torch.tensor(1)):
        found = collate([(np.zeros((2, 3), np.float32), label), (torch.zeros(1, 3), label)])
        assert found.labels.tolist() == [1, 1]
        assert found.features.shape == (2, 2, 3)


@pytest.mark.parametrize("gap", [None, float("nan"), np.nan, "nan", "NA", "unknown", ""])
def test_a_slide_without_a_label_is_left_out(packed, gap):
    dataset = FeatureDataset(packed, {"s1": "x", "s2": gap})
    assert (dataset.slide_ids, dataset.classes) == (("s1",), ("x",))


def test_a_cohort_and_a_grid_say_what_they_are(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("slide_id,case_id,label\na,p,<x>\nb,p,y\nc,q,y\n")
    cohort = read_labels(table)
    assert repr(cohort) == "<Cohort 3 slides, 2 patients: <x> 1, y 2>"
    assert "<td>&lt;x&gt;</td><td>1</td><td>1</td>" in cohort._repr_html_()
    assert "<td>y</td><td>2</td><td>2</td>" in cohort._repr_html_()
    splits = Splits((Fold(("a",), (), ("b", "c")), Fold(("b", "c"), (), ("a",))), {"kind": "k-fold"})
    assert repr(splits) == "<Splits k-fold, 2 × training/validation/test slides: 1/0/2, 2/0/1>"
    grid = TileGrid.plan(
        [Level(1000, 600, 1.0, 1.0)], Mpp(0.5, 0.5, "vendor"), GridConfig(mpp=1.0, tile_px=100)
    )
    assert repr(grid) == "<TileGrid 15 tiles of 100 px at 1 µm per pixel, read from level 0>"
