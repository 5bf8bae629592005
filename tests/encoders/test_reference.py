"""Reference vectors: made, read, compared, and refused where they are not what they say."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wsi_ncmi.cli.encoders import app
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import load_encoder
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.probe import PROBE, probe_tiles, tiles_sha256
from wsi_ncmi.encoders.reference import (
    compare_with,
    encode_probe,
    find_reference,
    read_reference,
    shipped_references,
    write_reference,
)

PROBE_SHA256 = "c801017fbc69efd041c30e1aa80f750ab7d3877c1c69163211de7b0131d5ac41"
DOCS = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def small():
    """An encoder of random weights, seeded, in the shape of any other."""
    return load_encoder("timm:test_resnet", device="cpu", batch_size=4, input_px=64)


@pytest.fixture(scope="module")
def known(small):
    return encode_probe(small, by="a test")


def test_the_probe_is_the_same_to_the_last_bit():
    small, large = probe_tiles()
    assert (small.shape, large.shape) == ((8, 256, 256, 3), (4, 512, 512, 3))
    assert tiles_sha256((small, large)) == PROBE_SHA256
    assert len({tile.tobytes() for tile in small}) == 8
    nuclei = [int((tile[..., 0] < 130).sum()) for tile in small]
    assert nuclei == sorted(nuclei)
    assert nuclei[0] > 0


def test_a_hash_is_of_shape_and_bytes():
    tiles = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    assert tiles_sha256((tiles,)) != tiles_sha256((tiles.reshape(1, 2, 8, 3),))
    assert tiles_sha256((tiles,)) != tiles_sha256((tiles[:, ::-1],))


def test_what_was_written_is_read_and_equal(small, known, tmp_path):
    path = write_reference(known, tmp_path / "x.npz")
    read = read_reference(path)
    assert read.about == known.about
    assert np.array_equal(read.vectors, known.vectors)
    made = compare_with(small, read)
    assert made.equal
    assert made.edges == (256,) * 8 + (512,) * 4
    np.testing.assert_allclose(made.cosine, 1)
    assert made.difference.max() == 0
    assert read.about.by == "a test"
    assert read.about.versions["timm"]
    assert set(np.load(path).files) == {"about", "vectors"}  # the tiles are those of the package


def test_figures_are_those_of_a_plain_reading(small, known):
    changed = known.vectors.copy()
    changed[3] += 0.5 * np.abs(changed[3]).max() * np.eye(1, changed.shape[1], 7, dtype=np.float32)[0]
    made = compare_with(small, replace(known, vectors=changed))
    for row, (mine, theirs) in enumerate(
        zip(known.vectors.astype(float), changed.astype(float), strict=True)
    ):
        assert made.cosine[row] == pytest.approx(
            mine @ theirs / (np.linalg.norm(mine) * np.linalg.norm(theirs))
        )
        assert made.difference[row] == pytest.approx(max(abs(mine - theirs)) / max(abs(theirs)))
    assert not made.equal
    assert made.difference.argmax() == 3


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"input_px": 80}, "another size"), ({"weights": "other"}, "other weights")],
)
def test_another_preprocessing_or_network_is_told(known, settings, why, tmp_path):
    if "weights" in settings:
        import timm
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(9)
        state = timm.create_model("test_resnet", num_classes=0).state_dict()
        save_file(state, tmp_path / "test_resnet.safetensors")
        settings = {"weights": tmp_path, "input_px": 64}
    other = load_encoder("timm:test_resnet", device="cpu", batch_size=4, **settings)
    made = compare_with(other, known)
    assert not made.equal, why
    assert "DIFFERENT" in made.markdown()


def test_own_tiles_travel_with_their_vectors(small, tmp_path):
    tiles = (np.random.default_rng(0).integers(0, 256, (2, 70, 70, 3), dtype=np.uint8),)
    about = replace(
        encode_probe(small).about, tiles="own", tiles_sha256=tiles_sha256(tiles), source="a paper"
    )
    path = write_reference(
        type(encode_probe(small))(about, small.encode(tiles[0]), tiles), tmp_path / "own.npz"
    )
    made = compare_with(small, read_reference(path))
    assert made.equal
    assert made.edges == (70, 70)
    assert "a paper" in made.markdown()


def _damaged(path, **changes):
    with np.load(path) as content:
        arrays = dict(content)
    about = json.loads(str(arrays["about"]))
    about |= {key: value for key, value in changes.items() if not isinstance(value, np.ndarray)}
    arrays |= {key: value for key, value in changes.items() if isinstance(value, np.ndarray)}
    np.savez(path, **{**arrays, "about": np.array(json.dumps(about))})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "other/2"}, "its schema is 'other/2'"),
        ({"tiles_sha256": "0" * 64}, "its tiles are not those that it was made with"),
        ({"vectors": np.zeros((12, 3))}, r"its vectors are float64 \(12, 3\)"),
        ({"vectors": np.full((12, 3), np.nan, np.float32)}, "finite"),
        ({"vectors": np.zeros((5, 3), np.float32)}, "5 vectors for 12 tiles"),
        ({"tiles": np.zeros((12, 8, 9, 3), np.uint8)}, "tiles must be square"),
        ({"versions": 3}, "versions"),
        ({"vectors": np.array([{}], dtype=object)}, "allow_pickle"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(known, changes, words, tmp_path):
    path = write_reference(known, tmp_path / "x.npz")
    _damaged(path, **changes)
    with pytest.raises(InputError, match=rf"The reference x\.npz can't be read .*{words}|{words}") as caught:
        read_reference(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"text"])
def test_what_is_no_reference_is_refused(content, tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"The reference x\.npz can't be read"):
        read_reference(path)


def test_damaged_bytes_and_a_lone_array_are_refused(known, tmp_path):
    path = tmp_path / "x.npz"
    whole = write_reference(known, tmp_path / "whole.npz").read_bytes()
    read = 0
    for place in range(
        40, len(whole), 61
    ):  # a flipped byte is an error of zlib, of numpy's header, of the sum
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(InputError):  # nothing else is raised
            read_reference(path)
            read += 1
    assert read < len(range(40, len(whole), 61)) / 2
    np.save(tmp_path / "x.npy", known.vectors)
    with pytest.raises(InputError, match=r"can't be read \(it is no \.npz file\)"):
        read_reference(tmp_path / "x.npy")


def test_the_report_obeys_nothing_that_a_file_says(small, known):
    strange = replace(known, about=replace(known.about, by="a\x1b[31m|\nb"))
    report = compare_with(small, strange).markdown()
    assert "\x1b" not in report
    assert "| by | a\\x1b[31m\\| b |" in report


def test_vectors_of_another_length_are_no_comparison(known):
    with pytest.raises(InputError, match="has vectors of 96 values, and descriptor gives 229"):
        compare_with(load_encoder("descriptor"), known)


def test_shipped_references_are_whole_and_named_in_the_docs():
    shipped = shipped_references()
    assert set(shipped) == {"descriptor", "gigapath", "squeezenet1_1"}
    page = (DOCS / "encoders.md").read_text("utf-8")
    for name, path in shipped.items():
        about = read_reference(path).about
        assert f"`{name}`" in page
        assert about.tiles == (PROBE if name != "gigapath" else "own")
        assert path == find_reference(Path(name))
    gigapath = read_reference(shipped["gigapath"])
    assert gigapath.vectors.shape == (1, presets()["gigapath"].embed_dim)
    assert "Apache-2.0" in gigapath.about.source
    with pytest.raises(InputError, match="shipped: descriptor, gigapath, squeezenet1_1"):
        find_reference(Path("uni_v1"))


def test_the_descriptor_equals_its_shipped_reference():
    made = compare_with(load_encoder("descriptor"), read_reference(shipped_references()["descriptor"]))
    assert made.cosine.min() > 1 - 1e-9
    assert made.difference.max() < 1e-5


@pytest.mark.real_data
def test_real_pretrained_weights_equal_the_shipped_reference(real_data):
    weights = real_data / "encoders" / "squeezenet1_1_imagenet.safetensors"
    encoder = load_encoder("torchvision:squeezenet1_1", device="cpu", weights=weights)
    made = compare_with(encoder, read_reference(shipped_references()["squeezenet1_1"]))
    assert made.here.weights_sha256 == made.reference.weights_sha256
    assert made.equal
    assert made.difference.max() < 1e-3
    random = compare_with(load_encoder("torchvision:squeezenet1_1", device="cpu"), read_reference(
        shipped_references()["squeezenet1_1"]
    ))  # fmt: skip
    assert not random.equal


def _run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_the_command_line_makes_and_proves(tmp_path):
    path = tmp_path / "d.npz"
    made = _run("reference", "timm:test_resnet", "--write", path, "--by", "A Lab")
    assert made.exit_code == 0, made.output
    proved = _run("verify", "--reference", path)
    assert proved.exit_code == 0
    assert proved.output.startswith(
        "### Encoder `timm:test_resnet`: equal to the reference\n\nSmallest cosine 1.0"
    )
    assert "| by | A Lab | this run |" in proved.output
    assert str(tmp_path) not in proved.output
    _damaged(path, vectors=read_reference(path).vectors[::-1])
    told = _run("verify", "--reference", path, "--json")
    assert told.exit_code == 1
    assert json.loads(told.output)["equal"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify", "--reference", "nowhere.npz"], "There is no reference file nowhere.npz"),
        (["verify", "--encoder", "descriptor"], "--encoder and --weights go with --reference"),
        (["reference", "descriptor", "--write", "x.csv"], "must be a file .npz in a folder that exists"),
        (["verify", "--reference", "gigapath"], "The preset gigapath needs its weights"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments, words, monkeypatch):
    monkeypatch.delenv("WSI_NCMI_WEIGHTS", raising=False)
    told = _run(*arguments)
    assert told.exit_code == 2
    assert words in told.output


def test_a_reference_from_elsewhere_names_no_program(known, tmp_path):
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef build():\n    pass\n")
    path = write_reference(known, tmp_path / "x.npz")
    _damaged(path, encoder=f"file:{evil}:build")
    told = _run("verify", "--reference", path)
    assert told.exit_code == 2
    assert "name your file of it with --encoder" in told.output
    assert not (tmp_path / "ran").exists()
