from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from wsi_ncmi.cohorts import BagSource, empty_bags, open_bag_source
from wsi_ncmi.core.errors import InputError

RNG = np.random.default_rng(0)
LENGTHS = np.array([3, 0, 2], dtype=np.int32)
FEATURES = RNG.normal(size=(5, 4)).astype(np.float16)


def packed(path, *, save=np.savez, **changes):
    arrays = {
        "features": FEATURES,
        "lengths": LENGTHS,
        "slide_id": np.array(["a", "b", "007"]),
        "label": np.array(["x", "y", "x"]),
        "case_id": np.array(["p", "q", "p"]),
    }
    arrays |= changes
    save(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def feature_file(folder, slide_id, features, **attrs):
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{slide_id}.h5", "w") as handle:
        handle["features"] = features
        handle["coords"] = np.zeros((len(features), 2), dtype=np.int64)
        handle.attrs.update(
            {
                "schema": "wsi-ncmi/features/1",
                "slide_id": slide_id,
                "n_tiles": len(features),
                "encoder": "descriptor",
                "encoder_weights_sha256": "",
                "transform": "none",
                "precision": "float32",
                "mpp_target": 0.5,
                "tile_px": 256,
                "overlap_px": 0,
                "complete": True,
            }
            | attrs
        )


def strip(folder, slide_id, attribute):
    with h5py.File(folder / f"{slide_id}.h5", "a") as handle:
        del handle.attrs[attribute]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_packed_bags(tmp_path, save, order):
    source = open_bag_source(
        packed(tmp_path / "bags.npz", save=save, features=np.asarray(FEATURES, order=order))
    )
    assert isinstance(source, BagSource)
    assert source.slide_ids == ("a", "b", "007")
    assert source.width == 4
    assert source.lengths.tolist() == [3, 0, 2]
    assert np.array_equal(source.load("a"), FEATURES[:3])
    assert source.load("b").shape == (0, 4)
    assert np.array_equal(source.load("007"), FEATURES[3:])
    assert source.load("a").dtype == np.float16
    assert empty_bags(source) == ("b",)
    cohort = source.embedded_cohort()
    assert [(r.slide_id, r.case_id, r.label) for r in cohort.rows] == [
        ("a", "p", "x"),
        ("b", "q", "y"),
        ("007", "p", "x"),
    ]
    with pytest.raises(InputError, match="no slide 'c'"):
        source.load("c")


def test_a_loaded_bag_may_be_written_to_without_touching_the_file(tmp_path):
    source = open_bag_source(packed(tmp_path / "bags.npz"))
    source.load("a")[:] = 0
    assert np.array_equal(source.load("a"), FEATURES[:3])


def test_uncompressed_features_stay_on_disk(tmp_path):
    source = open_bag_source(packed(tmp_path / "bags.npz"))
    assert isinstance(source._set.table, np.memmap)


def test_packed_without_labels_or_patients(tmp_path):
    assert open_bag_source(packed(tmp_path / "a.npz", label=None)).embedded_cohort() is None
    source = open_bag_source(packed(tmp_path / "b.npz", case_id=None))
    with pytest.raises(InputError, match=r"no 'case_id'.*--group slide_id"):
        source.embedded_cohort()
    cohort = source.embedded_cohort(group="slide_id")
    assert cohort.case_id_assumed
    assert cohort.case_ids == ("007", "a", "b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": None}, "lacks 'features'"),
        ({"slide_id": None}, "lacks 'slide_id'"),
        ({"lengths": np.array([3, 0, 1])}, "'lengths' sum to 4 tiles but 'features' has 5 rows"),
        ({"lengths": np.array([6, -3, 2])}, "whole numbers from 0"),
        ({"lengths": np.array([3.0, 0.0, 2.0])}, "whole numbers from 0"),
        ({"lengths": np.array([3, 2])}, "'lengths' has 2 entries but 'slide_id' has 3"),
        ({"label": np.array(["x"])}, "'label' has 1 entries"),
        ({"slide_id": np.array(["a", "b", "a"])}, "slide 'a' is there twice"),
        ({"features": np.zeros(5)}, "floating-point table"),
        ({"features": np.zeros((5, 4), dtype=np.int64)}, "floating-point table"),
        ({"slide_id": np.array(["a", "b", None], dtype=object)}, "can't be read"),
    ],
)
def test_faulty_packed_files(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        open_bag_source(packed(tmp_path / "bags.npz", **changes))


@pytest.mark.parametrize("label", [["x", "", "x"], ["x", "x", "x"]])
def test_faulty_embedded_labels(tmp_path, label):
    source = open_bag_source(packed(tmp_path / "bags.npz", label=np.array(label)))
    with pytest.raises(InputError, match=r"empty 'label'|only the class 'x'"):
        source.embedded_cohort()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_numbers_that_poison_a_training_are_refused(tmp_path, bad):
    features = FEATURES.astype(np.float32)
    features[4, 1] = bad
    source = open_bag_source(packed(tmp_path / "bags.npz", features=features))
    source.load("a")
    with pytest.raises(InputError, match="slide '007'"):
        source.load("007")


def test_truncated_archive(tmp_path):
    path = packed(tmp_path / "bags.npz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="can't be read as a packed"):
        open_bag_source(path)


@pytest.mark.parametrize("given", ["", "features", "features/descriptor"])
def test_feature_folder(tmp_path, given):
    folder = tmp_path / "features" / "descriptor"
    feature_file(folder, "b", FEATURES[:2])
    feature_file(folder, "a", FEATURES[2:])
    feature_file(folder, "empty", FEATURES[:0])
    (folder / ".c.h5.1-2.partial").write_text("half")
    source = open_bag_source(tmp_path / given)
    assert isinstance(source, BagSource)
    assert source.slide_ids == ("a", "b", "empty")
    assert source.lengths.tolist() == [3, 2, 0]
    assert source.width == 4
    assert source.encoder == "descriptor"
    assert np.array_equal(source.load("a"), FEATURES[2:])
    assert empty_bags(source) == ("empty",)
    assert source.embedded_cohort() is None
    assert open_bag_source(source.path).slide_ids == source.slide_ids


def test_sources_travel_to_other_processes(tmp_path):
    feature_file(tmp_path / "f", "a", FEATURES)
    many = np.tile(FEATURES, (1000, 1))
    path = packed(tmp_path / "bags.npz", features=many, lengths=np.array([4000, 0, 1000]))
    for source in (open_bag_source(tmp_path / "f"), open_bag_source(path)):
        luggage = pickle.dumps(source)
        assert len(luggage) < 2000
        again = pickle.loads(luggage)
        assert np.array_equal(again.load("a"), source.load("a"))


def test_several_encoders_must_be_chosen_from(tmp_path):
    feature_file(tmp_path / "features" / "descriptor", "a", FEATURES)
    feature_file(tmp_path / "features" / "resnet50", "a", FEATURES)
    with pytest.raises(InputError, match=r"several encoders \(descriptor, resnet50\)"):
        open_bag_source(tmp_path)
    assert open_bag_source(tmp_path / "features" / "resnet50").slide_ids == ("a",)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("encoder", "resnet50"),
        ("mpp_target", 0.25),
        ("tile_px", 224),
        ("overlap_px", 16),
        ("encoder_weights_sha256", "ff"),
        ("stain", '{"method":"macenko"}'),
    ],
)
def test_mixed_identity_is_refused(tmp_path, attribute, value):
    feature_file(tmp_path, "a", FEATURES)
    feature_file(tmp_path, "b", FEATURES, **{attribute: value})
    with pytest.raises(InputError, match=rf"different identity: {attribute} is .* in a.h5 but .* in b.h5"):
        open_bag_source(tmp_path)


def test_files_of_the_layout_before_stains_go_with_those_without(tmp_path):
    feature_file(tmp_path, "a", FEATURES)
    feature_file(tmp_path, "b", FEATURES, stain="none")
    assert open_bag_source(tmp_path).slide_ids == ("a", "b")


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 4)}, {"chunks": (2, 4), "compression": "gzip"}])
def test_every_layout_inside_a_file_gives_the_same_bag(tmp_path, options):
    feature_file(tmp_path, "a", FEATURES)
    with h5py.File(tmp_path / "a.h5", "a") as handle:
        del handle["features"]
        handle.create_dataset("features", data=FEATURES, **options)
    bag = open_bag_source(tmp_path).load("a")
    np.testing.assert_array_equal(bag, FEATURES)
    bag[:] = 0
    np.testing.assert_array_equal(open_bag_source(tmp_path).load("a"), FEATURES)


def test_poisoned_and_shortened_files(tmp_path):
    feature_file(tmp_path, "a", FEATURES)
    source = open_bag_source(tmp_path)
    with h5py.File(tmp_path / "a.h5", "a") as handle:
        handle["features"][3, 1] = np.nan
    with pytest.raises(InputError, match="NaN"):
        source.load("a")
    (tmp_path / "a.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:500])
    with pytest.raises(InputError, match=r"a\.h5 can't be read"):
        source.load("a")


def test_unusable_files_are_named(tmp_path):
    feature_file(tmp_path, "a", FEATURES)
    feature_file(tmp_path, "incomplete", FEATURES, complete=False)
    feature_file(tmp_path, "unfinished", FEATURES)
    strip(tmp_path, "unfinished", "complete")
    feature_file(tmp_path, "short", FEATURES, n_tiles=9)
    feature_file(tmp_path, "foreign", FEATURES)
    strip(tmp_path, "foreign", "schema")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(InputError) as caught:
        open_bag_source(tmp_path)
    message = str(caught.value)
    assert message.startswith("5 feature files")
    for expected in (
        "incomplete.h5 (not complete)",
        "unfinished.h5 (not complete)",
        "short.h5 (5 rows where n_tiles says 9)",
        "foreign.h5 (not written by wsi-ncmi)",
        "text.h5 (truncated or not HDF5)",
        "verify",
    ):
        assert expected in message


def test_widths_must_agree(tmp_path):
    feature_file(tmp_path, "a", FEATURES)
    feature_file(tmp_path, "b", FEATURES[:, :2])
    with pytest.raises(InputError, match=r"4 dimensions and b\.h5 of 2"):
        open_bag_source(tmp_path)


def test_nothing_to_open(tmp_path):
    with pytest.raises(InputError, match=r"No feature files .* run 'wsi-ncmi extract'"):
        open_bag_source(tmp_path)
    with pytest.raises(InputError, match="don't exist"):
        open_bag_source(tmp_path / "nowhere")
    other = tmp_path / "features.txt"
    other.write_text("")
    with pytest.raises(InputError, match="neither a folder"):
        open_bag_source(other)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "slides", "patients", "classes"),
    [("tcga_rcc", 905, 866, ("CCRCC", "CHRCC", "PRCC")), ("tcga_nsclc", 958, None, ("LUAD", "LUSC"))],
)
def test_real_bags(real_data, name, slides, patients, classes):
    path = real_data / "tcga_bags" / f"{name}.npz"
    source = open_bag_source(path)
    cohort = source.embedded_cohort()
    assert len(source.slide_ids) == slides
    assert source.width == 192
    assert cohort.classes == classes
    assert patients is None or len(cohort.case_ids) == patients
    with np.load(path) as plain:
        ends = np.cumsum(plain["lengths"])
        features = plain["features"]
        for i in (0, 1, slides // 2, slides - 1):
            expected = features[ends[i] - plain["lengths"][i] : ends[i]]
            assert np.array_equal(source.load(str(plain["slide_id"][i])), expected)
