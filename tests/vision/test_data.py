"""Every kind of image set gives the images and labels that were put in."""

from __future__ import annotations

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.vision import ArrayPart, ImageDataConfig, open_images
from wsi_ncmi.vision.data import _drawn


def opened(path, **options):
    return open_images(ImageDataConfig(path=path, **options))


def random_images(count, side=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def as_published(content):
    """A pickle as Python 2 and an early NumPy wrote it."""
    return pickle.dumps(content, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def flat(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


@pytest.fixture
def cifar100(tmp_path):
    train, test = random_images(12), random_images(6, seed=1)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    y = list(range(3)) * 4
    (folder / "train").write_bytes(
        as_published({b"data": flat(train), b"fine_labels": y, b"coarse_labels": y})
    )
    (folder / "test").write_bytes(as_published({b"data": flat(test), b"fine_labels": y[:6]}))
    (folder / "meta").write_bytes(as_published({b"fine_label_names": [b"apple", b"bear", b"cup"]}))
    return folder, train, test


@pytest.mark.parametrize("form", ["folder", "parent", "archive"])
def test_cifar100_as_published(cifar100, tmp_path, form):
    folder, train, test = cifar100
    path = {"folder": folder, "parent": tmp_path}.get(form)
    if form == "archive":
        path = tmp_path / "sub" / "cifar-100-python.tar.gz"
        path.parent.mkdir()
        with tarfile.open(path, "w:gz") as tar:
            tar.add(folder, "cifar-100-python")
    images = opened(path)
    assert images.classes == ("apple", "bear", "cup")
    np.testing.assert_array_equal(images.train.pixels, train)
    np.testing.assert_array_equal(images.test.pixels, test)
    assert images.train.y.tolist() == [0, 1, 2] * 4


def test_cifar10_as_published(tmp_path):
    batches = [random_images(4, seed=i) for i in range(6)]
    for i, batch in enumerate(batches):
        name = f"data_batch_{i + 1}" if i < 5 else "test_batch"
        (tmp_path / name).write_bytes(as_published({b"data": flat(batch), b"labels": [0, 1, 1, 0]}))
    (tmp_path / "batches.meta").write_bytes(as_published({b"label_names": [b"airplane", b"automobile"]}))
    images = opened(tmp_path)
    np.testing.assert_array_equal(images.train.pixels, np.concatenate(batches[:5]))
    np.testing.assert_array_equal(images.test.pixels, batches[5])
    assert images.train.y.tolist() == [0, 1, 1, 0] * 5


class _Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_that_would_run_code_is_refused(cifar100, capsys):
    folder, _, _ = cifar100
    (folder / "train").write_bytes(pickle.dumps({b"data": _Evil()}, protocol=2))
    with pytest.raises(InputError, match=r"isn't CIFAR-10 or CIFAR-100 as published .*asks for"):
        opened(folder)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "missing", "labels"])
def test_damaged_cifar_is_named(cifar100, damage):
    folder, train, _ = cifar100
    if damage == "cut":
        (folder / "train").write_bytes((folder / "train").read_bytes()[:500])
    elif damage == "labels":
        (folder / "train").write_bytes(as_published({b"data": flat(train), b"fine_labels": [9] * 12}))
    else:
        (folder / "test").write_bytes(as_published({b"data": flat(train)}))
    with pytest.raises(InputError, match=r"get cifar-10-python.tar.gz or cifar-100-python.tar.gz again"):
        opened(folder)


def save(path, x_train, y_train, x_test, y_test, medmnist=False, **more):
    names = ("train_images", "train_labels", "test_images", "test_labels")
    names = names if medmnist else ("x_train", "y_train", "x_test", "y_test")
    np.savez(path, **dict(zip(names, (x_train, y_train, x_test, y_test), strict=True)), **more)
    return path


def test_npz_in_all_layouts(tmp_path):
    x, y = random_images(6, 8), np.arange(6) % 2
    rgb = opened(save(tmp_path / "a.npz", x, y, x, y))
    medmnist = opened(save(tmp_path / "b.npz", x, y[:, None].astype(np.uint8), x, y[:, None], medmnist=True))
    planes = opened(save(tmp_path / "c.npz", x.transpose(0, 3, 1, 2), y, x, y))
    grey = opened(save(tmp_path / "d.npz", x[..., 0], y, x[..., :1], y, classes=np.array(["no", "yes"])))
    for images in (rgb, medmnist, planes):
        np.testing.assert_array_equal(images.train.pixels, x)
        assert images.train.y.tolist() == y.tolist()
        assert images.classes == ("0", "1")
    assert grey.classes == ("no", "yes")
    np.testing.assert_array_equal(grey.train.pixels, np.repeat(x[..., :1], 3, axis=-1))


@pytest.mark.parametrize(
    ("x", "y", "more", "message"),
    [
        (random_images(4, 8).astype(np.float32), np.arange(4) % 2, {}, "float32"),
        (random_images(4, 8)[:, :, :5], np.arange(4) % 2, {}, "not square"),
        (random_images(4, 8), np.arange(3), {}, "4 images and 3 labels"),
        (random_images(4, 8), np.array([0, 1, -1, 0]), {}, "negative"),
        (random_images(4, 8), np.array([0, 1, 2, 0]), {"classes": np.array(["a"])}, "names 1 classes"),
    ],
)
def test_an_npz_of_something_else_is_named(tmp_path, x, y, more, message):
    with pytest.raises(InputError, match=f"a.npz holds no image set .*{message}"):
        opened(save(tmp_path / "a.npz", x, y, x, y, **more))


def test_an_npz_without_the_keys_or_with_objects_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros(3))
    with pytest.raises(InputError, match=r"it has the keys images.*it needs x_train"):
        opened(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x_train=np.array([{}]), y_train=0, x_test=0, y_test=0)
    with pytest.raises(InputError, match=r"b\.npz holds no image set"):
        opened(tmp_path / "b.npz")


def make_mosaics(path, images, y, grid=3):
    rows = images.reshape(-1, grid, 4, 4, 3).transpose(0, 2, 1, 3, 4).reshape(-1, grid * 4, 3)
    Image.fromarray(rows[:8]).save(path / "train_0.png")
    Image.fromarray(rows[8:]).save(path / "train_1.png")
    Image.fromarray(rows[:8]).save(path / "test.png")
    np.savez(path / "labels.npz", train=y, test=y[: 2 * grid])
    (path / "meta.json").write_text(json.dumps({"grid": grid, "classes": ["a", "b"]}))


def test_mosaics(tmp_path):
    images, y = random_images(12, 4), np.arange(12) % 2
    make_mosaics(tmp_path, images, y)
    found = opened(tmp_path)
    np.testing.assert_array_equal(found.train.pixels, images)
    np.testing.assert_array_equal(found.test.pixels, images[:6])
    assert found.classes == ("a", "b")
    np.savez(tmp_path / "labels.npz", train=y[:5], test=y[:6])
    with pytest.raises(InputError, match="12 images and 5 labels"):
        opened(tmp_path)


@pytest.mark.real_data
def test_the_real_cifar100(real_data):
    images = opened(real_data / "cifar100", classes=20, evaluate_on="test")
    assert images.classes[:2] == ("apple", "aquarium_fish")
    assert images.train.pixels.shape == (10000, 32, 32, 3)
    assert np.bincount(images.test.y).tolist() == [100] * 20
    whole = np.asarray(Image.open(real_data / "cifar100" / "test.webp").convert("RGB"))
    expected = whole.reshape(100, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
    y = np.load(real_data / "cifar100" / "labels.npz")["test"]
    np.testing.assert_array_equal(images.test.pixels, expected[y < 20])


def write_tree(path, parts=("train", "val")):
    pictures = {}
    for part in parts:
        for label, name in enumerate(("cat", "dog")):
            for i in range(3):
                image = random_images(1, 20, seed=10 * label + i)[0][:, : 14 + i]
                file = path / part / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(file)
                pictures[part, name, i] = (file, label, image)
    return pictures


def write_shards(path, pictures, label_as):
    path.mkdir()
    for part in ("train", "val"):
        mine = [(key, value) for key, value in pictures.items() if key[0] == part]
        for shard in range(2):
            with tarfile.open(path / f"set-{part}-{shard:04d}.tar", "w") as tar:
                for (_, name, i), (file, label, _) in mine[shard::2]:
                    content = file.read_bytes()
                    text = str(label) if label_as == "cls" else json.dumps({"label": label, "filename": "x"})
                    for suffix, data in ((label_as, text.encode()), ("png", content)):
                        info = tarfile.TarInfo(f"{name}/{i:03d}.{suffix}")
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("kind", ["folders", "cls", "json"])
def test_folders_and_shards_give_the_same_pictures(tmp_path, kind):
    pictures = write_tree(tmp_path / "tree")
    path = tmp_path / "tree"
    if kind != "folders":
        path = tmp_path / "shards"
        write_shards(path, pictures, kind)
        (path / "classes.txt").write_text("cat\ndog\n")
    found = opened(path)
    assert found.classes == ("cat", "dog")
    for name, part in (("train", found.train), ("val", found.test)):
        expected = sorted(
            (label, image.tobytes()) for (p, _, _), (_, label, image) in pictures.items() if p == name
        )
        got = [(int(y), np.asarray(part.read(row)).tobytes()) for row, y in enumerate(part.y)]
        assert sorted(got) == expected
    # A part of a part reads the pictures that it names.
    some = found.train.take(np.array([4, 1]))
    assert np.array_equal(np.asarray(some.read(1)), np.asarray(found.train.read(1)))
    assert some.names[1] == found.train.names[1]
    assert not any(str(tmp_path) in name for name in found.train.names)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no test", "neither test/ nor val/"),
        ("empty", "holds no picture"),
        ("other class", "has the class 'wolf', which train/ lacks"),
    ],
)
def test_a_tree_that_lacks_something_is_named(tmp_path, damage, message):
    write_tree(tmp_path, ("train",) if damage == "no test" else ("train", "val"))
    if damage == "empty":
        for file in (tmp_path / "train").rglob("*.png"):
            file.rename(file.with_suffix(".txt"))
    if damage == "other class":
        (tmp_path / "val" / "wolf").mkdir()
    with pytest.raises(InputError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("gz", "can't be indexed"),
        ("label", "has no label"),
        ("cut", "can't be indexed"),
        ("no test", "evaluation needs"),
        ("negative", "negative"),
    ],
)
def test_a_shard_that_lacks_something_is_named(tmp_path, damage, message):
    path = tmp_path / "shards"
    write_shards(path, write_tree(tmp_path / "tree"), "cls")
    first = path / "set-train-0000.tar"
    if damage == "no test":
        for file in path.glob("*val*"):
            file.unlink()
    elif damage == "cut":
        first.write_bytes(first.read_bytes()[:700] + b"\x01" * 600)
    else:
        with tarfile.open(first, "w:gz" if damage == "gz" else "w") as tar:
            suffixes = {"label": ["png"], "negative": ["png", "cls"]}.get(damage, ["cls"])
            for suffix in suffixes:
                info = tarfile.TarInfo(f"a.{suffix}")
                info.size = 2
                tar.addfile(info, io.BytesIO(b"-1"))
    with pytest.raises(InputError, match=message):
        opened(path)


def test_what_is_no_image_set_is_said(tmp_path):
    with pytest.raises(InputError, match="There is no image set at"):
        opened(tmp_path / "absent")
    with pytest.raises(InputError, match="is no image set of a known format"):
        opened(tmp_path)
    with pytest.raises(InputError, match=r"set data\.path"):
        opened(None)


def test_classes_and_counts(tmp_path):
    x, y = random_images(40, 4), np.arange(40) % 4
    path = save(tmp_path / "a.npz", x, y, x[:8], y[:8], classes=np.array(list("abcd")))
    first = opened(path, classes=2)
    assert first.classes == ("a", "b")
    np.testing.assert_array_equal(first.train.pixels, x[y < 2])
    named = opened(path, classes=("d", "b"), images_per_class=3)
    assert named.classes == ("d", "b")
    assert np.bincount(named.train.y).tolist() == [3, 3]
    np.testing.assert_array_equal(named.test.pixels, x[:8][np.isin(y[:8], (3, 1))])
    assert named.test.y.tolist() == [1, 0, 1, 0]
    for wrong, message in (
        (9, "has 4 classes"),
        (("a", "z"), "'z' is not a class"),
        (("a",), "two or more"),
        (("a", "a"), "each once"),
    ):
        with pytest.raises(InputError, match=message):
            opened(path, classes=wrong)


def test_validation_is_held_out_and_the_test_part_stays_shut(tmp_path):
    x, y = random_images(40, 4), np.arange(40) % 4
    path = save(tmp_path / "a.npz", x, y, x[:8], y[:8])
    found = opened(path, validation=0.2, evaluate_on="validation")
    assert found.test is None
    assert np.bincount(found.validation.y).tolist() == [2] * 4
    both = sorted(image.tobytes() for part in (found.train, found.validation) for image in part.pixels)
    assert both == sorted(image.tobytes() for image in x)
    with pytest.raises(ValidationError, match=r"needs a share in data\.validation"):
        ImageDataConfig(path=path, evaluate_on="validation")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=80), st.floats(0, 0.9), st.integers(1, 9))
def test_drawn_parts_are_disjoint_and_stratified(labels, share, most):
    y = np.array(labels, dtype=np.int64)
    rows, held_out = _drawn(y, ImageDataConfig(validation=share, images_per_class=most))
    assert not set(rows) & set(held_out)
    for label in range(y.max() + 1):
        count = int((y == label).sum())
        assert (y[held_out] == label).sum() == round(share * count)
        assert (y[rows] == label).sum() == min(most, count - round(share * count))


def test_a_digest_tells_sets_apart():
    x, y = random_images(10, 4), np.arange(10) % 2
    other = x.copy()
    other[3, 1, 1, 1] ^= 1
    digests = {ArrayPart(x, y).digest(), ArrayPart(other, y).digest(), ArrayPart(x, 1 - y).digest()}
    assert len(digests) == 3
    assert ArrayPart(x.copy(), y.copy()).digest() in digests
