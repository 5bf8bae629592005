"""Encoders from a user's own files and packages."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import sha256_file
from wsi_ncmi.encoders import EncoderConfig, encoder_folder_name, list_encoders, load_encoder

REFERENCE = Path(__file__).parent / "reference"
STATED = "resize 32 bicubic antialias; mean 0.1,0.2,0.3; std 0.5,0.5,0.5"


def _options(name, **more):
    base = {"name": name, "device": "cpu", "batch_size": 2, "input_px": 32, "interpolation": "bicubic",
            "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}  # fmt: skip
    return EncoderConfig(**{**base, **more})


def _pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def _means(pixels):
    return (pixels / 255 - [0.1, 0.2, 0.3]).mean(axis=(1, 2)) / 0.5


@pytest.fixture
def script(tmp_path):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.zeros(1, 3, 32, 32)).save(tmp_path / "my model.pt")
    return tmp_path / "my model.pt", network


def test_torchscript(script, caplog):
    path, network = script
    encoder = load_encoder(_options(f"torchscript:{path}"))
    assert encoder.info.embed_dim == 4
    expected = network(torch.from_numpy(_means(_pixels())).float()[..., None, None]).detach()
    np.testing.assert_allclose(encoder.encode(_pixels()), expected.numpy(), atol=1e-5)
    assert encoder.info.name == "torchscript:my model.pt"
    assert encoder_folder_name(encoder.info.name) == "torchscript_my_model.pt"
    assert encoder.info.transform == f"{STATED}; torchscript sha256 {sha256_file(path)}"
    assert encoder.info.weights_source == "my model.pt"
    assert len(encoder.info.weights_sha256) == 64
    assert "runs the program in its file" in caplog.text
    kept = " ".join((encoder.info.name, encoder.info.transform, encoder.info.weights_source))
    assert str(path.parent) not in kept  # no path of this machine in a feature file
    # Predicting knows only the name that was kept: the weights folder leads to the file.
    again = load_encoder(_options(encoder.info.name, weights=path.parent))
    assert again.info.transform == encoder.info.transform
    assert (
        load_encoder(_options(encoder.info.name, weights=path)).info.weights_sha256
        == encoder.info.weights_sha256
    )


def test_torchscript_is_never_loaded_unnamed(script):
    path, _ = script
    with pytest.raises(InputError, match="weights file"):
        load_encoder(EncoderConfig(name="torchvision:resnet18", weights=path, device="cpu"))


def test_preparation_has_defaults(script):
    encoder = load_encoder(EncoderConfig(name=f"torchscript:{script[0]}", device="cpu", batch_size=1))
    assert encoder.info.transform.startswith(
        "resize 224 bilinear antialias; mean 0.485,0.456,0.406; std 0.229,0.224,0.225; torchscript sha256"
    )


def test_files_that_are_not_what_they_are_called(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"no program")
    with pytest.raises(InputError, match="can't be read as TorchScript") as caught:
        load_encoder(_options(f"torchscript:{tmp_path / 'a.pt'}"))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"no TorchScript file .*absent\.pt"):
        load_encoder(_options(f"torchscript:{tmp_path / 'absent.pt'}"))


def test_a_network_that_cant_take_the_tile_is_one_sentence(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(7, 2)).save(tmp_path / "flat.pt")
    with pytest.raises(InputError, match="can't run on a tile of 32 px") as caught:
        load_encoder(_options(f"torchscript:{tmp_path / 'flat.pt'}"))
    assert "\n" not in str(caught.value)


def test_onnx():
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    encoder = load_encoder(_options(f"onnx:{REFERENCE / 'tiny.onnx'}"))
    expected = _means(_pixels()) @ np.arange(12).reshape(3, 4)
    np.testing.assert_allclose(encoder.encode(_pixels()), expected, atol=1e-4)
    digest = sha256_file(REFERENCE / "tiny.onnx")
    assert (encoder.info.name, encoder.info.backend, encoder.info.embed_dim) == (
        "onnx:tiny.onnx",
        "onnxruntime-cpu",
        4,
    )
    assert encoder.info.weights_sha256 == digest
    assert encoder.info.transform == f"{STATED}; onnx sha256 {digest}"


@pytest.mark.parametrize(
    ("file", "fault"), [("tiny_external.onnx", "one whole file"), ("two_inputs.onnx", "one float image")]
)
def test_onnx_files_that_dont_fit(file, fault):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    with pytest.raises(InputError, match=fault) as caught:
        load_encoder(_options(f"onnx:{REFERENCE / file}"))
    assert "\n" not in str(caught.value)


def test_onnx_without_its_package(without):
    without("onnxruntime")
    with pytest.raises(InputError, match=r'onnxruntime.*pip install "wsi-ncmi\[onnx\]"'):
        load_encoder(_options(f"onnx:{REFERENCE / 'tiny.onnx'}"))


OWN = """
import torch
from torch import nn
from wsi_ncmi.encoders import Encoder, EncoderInfo

def module():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

def with_options(options):
    assert options.input_px == 32
    return module()

class Grey(Encoder):
    info = EncoderInfo("?", 1, "mean of all", "none", "none", "fp32", "numpy")

    def _encode(self, pixels):
        return pixels.mean(axis=(1, 2, 3), dtype="float32")[:, None]

class Nameless(Encoder):
    def _encode(self, pixels):
        return pixels.mean(axis=(1, 2, 3), dtype="float32")[:, None]

class GreyOf01(Encoder):
    name, width, transform, weights_sha256, weights_source = "?", 1, "mean of all", "none", "none"
    precision, backend = "fp32", "numpy"

    def _encode(self, pixels):
        return pixels.mean(axis=(1, 2, 3), dtype="float32")[:, None]

def broken():
    raise RuntimeError("no such thing")

nothing = 3

def text():
    return "text"
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


@pytest.mark.parametrize("function", ["module", "with_options"])
def test_a_module_from_a_file(own, function):
    encoder = load_encoder(_options(f"file:{own}:{function}"))
    np.testing.assert_allclose(encoder.encode(_pixels()), _means(_pixels()), atol=1e-5)
    assert encoder.info.name == f"file:own.py:{function}"
    assert encoder.info.transform == f"{STATED}; code sha256 {sha256_file(own)}"


@pytest.mark.parametrize("written_for", ["Grey", "GreyOf01"])
def test_an_encoder_from_a_file(own, written_for):
    encoder = load_encoder(_options(f"file:{own}:{written_for}"))
    np.testing.assert_allclose(encoder.encode(_pixels())[:, 0], _pixels().mean((1, 2, 3)), rtol=1e-5)
    assert encoder.info.name == f"file:own.py:{written_for}"
    assert (encoder.info.embed_dim, encoder.info.backend) == (1, "numpy")
    assert encoder.info.transform == f"mean of all; code sha256 {sha256_file(own)}"


@pytest.mark.parametrize(
    ("rest", "fault"),
    [
        (":broken", r"can't be built \(RuntimeError: no such thing\)"),
        (":nothing", "no callable 'nothing'"),
        (":absent", "no callable 'absent'"),
        (":text", "is a str"),
        (":Nameless", "has no info"),
    ],
)
def test_faults_of_own_files(own, rest, fault):
    with pytest.raises(InputError, match=fault):
        load_encoder(_options(f"file:{own}{rest}"))


def test_a_file_that_cant_be_run(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(InputError, match=r"can't be run \(ZeroDivisionError"):
        load_encoder(_options(f"file:{tmp_path / 'bad.py'}:x"))


def test_an_installed_package_announces_its_encoder(tmp_path, monkeypatch):
    (tmp_path / "announcing.py").write_text(OWN)
    info = tmp_path / "announcing-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: announcing\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[wsi_ncmi.encoders]\nmine = announcing:module\ngone = announcing:absent\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    encoder = load_encoder(_options("plugin:mine"))
    np.testing.assert_allclose(encoder.encode(_pixels()), _means(_pixels()), atol=1e-5)
    assert (encoder.info.name, encoder.info.weights_source) == ("plugin:mine", "announcing 1.2")
    assert encoder.info.transform == f"{STATED}; code of announcing 1.2"
    assert {"plugin:mine", "plugin:gone"} <= set(list_encoders("plugin"))
    with pytest.raises(InputError, match="plugin:gone can't be imported"):
        load_encoder(_options("plugin:gone"))
    with pytest.raises(ValidationError, match="did you mean plugin:mine"):
        _options("plugin:mime")
