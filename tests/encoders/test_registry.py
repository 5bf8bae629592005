from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
from pydantic import ValidationError

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import EncoderConfig, encoder_folder_name, list_encoders, load_encoder
from wsi_ncmi.encoders.registry import EncoderFamily, encoder_family


def test_listing_holds_every_family():
    names = list_encoders()
    assert {"descriptor", "torchvision:squeezenet1_1", "torchvision:vit_b_16", "timm:resnet18"} <= set(names)
    assert list_encoders("descriptor") == ("descriptor",)
    assert {"uni_v1", "virchow2", "resnet50"} <= set(list_encoders("preset")) <= set(names)
    assert not [name for name in names if name.startswith(("torchscript", "onnx", "file"))]
    assert len(set(names)) == len(names)
    with pytest.raises(InputError, match="no encoder family 'tim'"):
        list_encoders("tim")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("descriptr", "did you mean descriptor"),
        ("torchvision:squeezenet11", "torchvision:squeezenet1_1"),
        ("torchvison:resnet50", "torchvision:resnet50"),
        ("resnet18", "torchvision:resnet18 or timm:resnet18"),
        ("UNI", "uni_v1"),
        ("uni2-h", "uni_v2"),
        ("h0_mini", "h0-mini"),
        ("Hibou-L", "hibou_l"),
        ("preset:uni_v1", "no encoder"),
        ("torchscript:", "no encoder"),
        ("plugin:absent", "no encoder"),
        ("timm:resnet_18", "timm:resnet18"),
        ("timm:hf-hub:MahmoodLab/UNI", "no encoder"),
        ("timm:resnet18.no_such_tag", "no encoder"),
        ("timm:", "no encoder"),
        ("torchvision:", "no encoder"),
        ("descriptor:x", "no encoder"),
        ("", "use descriptor, a preset (wsi-ncmi encoders list), torchvision:NAME or timm:NAME"),
    ],
)
def test_unknown_names_get_the_nearest(name, hint):
    with pytest.raises(InputError, match="no encoder") as caught:
        load_encoder(EncoderConfig(name=name))
    assert hint in str(caught.value)


def test_folder_names():
    assert encoder_folder_name("torchvision:squeezenet1_1") == "torchvision_squeezenet1_1"
    assert encoder_folder_name("timm:a/b c.d") == "timm_a_b_c.d"


def test_a_family_is_registered_once():
    with pytest.raises(ValueError, match="twice"):
        encoder_family("descriptor")(type("Again", (EncoderFamily,), {"models": tuple, "load": None}))


@pytest.mark.parametrize(
    "wrong", [{"device": "tpu"}, {"precision": "int8"}, {"batch_size": 0}, {"colour": 1}]
)
def test_options_are_checked(wrong):
    with pytest.raises(ValidationError):
        EncoderConfig(**wrong)


def test_importing_the_room_and_the_descriptor_needs_no_torch():
    code = (
        "import sys; from wsi_ncmi.encoders import load_encoder, EncoderConfig; load_encoder(EncoderConfig());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_decides_an_encoders_numbers_keeps_its_keys_in_run_json():
    info = load_encoder(EncoderConfig()).info
    assert pickle.loads(pickle.dumps(info)) == info
    assert json.loads(json.dumps(info.to_json())) == {
        "name": "descriptor", "width": 229,
        "transform": "descriptor 1; own size; tile white point; Ruifrok-Johnston HED",
        "weights_sha256": "none", "weights_source": "none", "precision": "fp32", "backend": "numpy",
        "batch_size": None,
    }  # fmt: skip
