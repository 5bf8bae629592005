from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from wsi_ncmi.cohorts import JoinedBags, open_bag_source
from wsi_ncmi.core.errors import InputError


def packed(path: Path, names: list[str], lengths: list[int], width: int, seed: int, shift: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    coords = np.stack([np.arange(total), np.arange(total) + shift], axis=1)
    np.savez(
        path, features=rng.normal(size=(total, width)).astype(np.float16), lengths=np.array(lengths),
        slide_id=np.array(names), label=np.array(["x", "y", "x"][: len(names)]), case_id=np.array(names),
        encoder=np.array(f"enc{width}"), coords=coords,
    )  # fmt: skip
    return path


def test_columns_follow_each_other_and_the_order_of_a_source_does_not_matter(tmp_path):
    a = open_bag_source(packed(tmp_path / "a.npz", ["s1", "s2", "s3"], [2, 3, 4], 5, 0))
    rows = {"s1": a.load("s1"), "s3": a.load("s3")}
    places = np.concatenate([a.coordinates("s3"), a.coordinates("s1")])
    np.savez(
        tmp_path / "b.npz", features=np.concatenate([2 * rows["s3"], 3 * rows["s1"]]),
        lengths=np.array([4, 2]), slide_id=np.array(["s3", "s1"]), encoder=np.array("other"), coords=places,
    )  # fmt: skip
    joined = pickle.loads(pickle.dumps(JoinedBags([a, open_bag_source(tmp_path / "b.npz")])))
    assert joined.slide_ids == ("s1", "s3")
    assert joined.lengths.tolist() == [2, 4]
    assert joined.width == 10
    assert joined.encoder == "enc5 + other"
    np.testing.assert_array_equal(joined.load("s1"), np.hstack([rows["s1"], 3 * rows["s1"]]))
    np.testing.assert_array_equal(joined.load("s3"), np.hstack([rows["s3"], 2 * rows["s3"]]))
    assert joined.load("s3").dtype == np.float16
    cohort = joined.embedded_cohort()
    assert cohort is not None
    assert cohort.by_slide["s2"].label == "y"


@pytest.mark.parametrize(
    ("names", "lengths", "shift", "message"),
    [
        (["s1", "s2"], [2, 5], 0, r"'s2' has 3 tiles in .*a\.npz but 5 in .*b\.npz"),
        (["other"], [2], 0, "no slide in common"),
        (["s1", "s2"], [2, 3], 7, r"tiles of slide 's1' lie elsewhere in .*b\.npz than in .*a\.npz"),
    ],
)
def test_tiles_that_differ_are_refused(tmp_path, names, lengths, shift, message):
    a = open_bag_source(packed(tmp_path / "a.npz", ["s1", "s2"], [2, 3], 5, 0))
    b = open_bag_source(packed(tmp_path / "b.npz", names, lengths, 4, 1, shift))
    with pytest.raises(InputError, match=message):
        JoinedBags([a, b]).load("s1")


def test_grids_that_differ_are_refused(tmp_path):
    a = open_bag_source(packed(tmp_path / "a.npz", ["s1"], [2], 5, 0))
    b = open_bag_source(packed(tmp_path / "b.npz", ["s1"], [2], 4, 1))
    a.identity, b.identity = {"mpp_target": 0.5, "tile_px": 256}, {"mpp_target": 1.0, "tile_px": 256}
    with pytest.raises(InputError, match=r"mpp_target is 0.5 in .* but 1.0 in"):
        JoinedBags([a, b])
