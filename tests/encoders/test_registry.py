from __future__ import annotations

import json
import pickle
import pkgutil
import subprocess
import sys

import pytest
from pydantic import ValidationError

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import EncoderConfig, encoder_folder_name, list_encoders, load_encoder
from wsi_ncmi.encoders.config import FAMILIES, networks_of


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
        ("torchvison:resnet50", "torchvision:resnet50"),
        ("resnet18", "torchvision:resnet18 or timm:resnet18"),
        ("UNI", "uni_v1"),
        ("uni2-h", "uni_v2"),
        ("h0_mini", "h0-mini"),
        ("Hibou-L", "hibou_l"),
        ("preset:uni_v1", "no encoder"),
        ("torchscript:", "no encoder"),
        ("timm:", "no encoder"),
        ("torchvision:", "no encoder"),
        ("descriptor:x", "no encoder"),
        ("file:own.py", "is named file:FILE.py:CALLABLE"),
        ("", "use descriptor, a preset (wsi-ncmi encoders list), torchvision:NAME or timm:NAME"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest_when_the_config_is_made(name, hint):
    with pytest.raises(ValidationError, match=r"no encoder|is named") as caught:
        EncoderConfig(name=name)
    assert hint in str(caught.value)


def test_a_misspelt_preset_is_not_taken_for_another_packages_network():
    with pytest.raises(ValidationError) as caught:
        EncoderConfig(name="unl_v1")
    assert "did you mean uni_v1" in str(caught.value)
    assert "timm:" not in str(caught.value)


def test_a_name_like_none_gets_the_nearest_preset_and_no_network_that_is_not_there():
    with pytest.raises(
        ValidationError, match=r"no encoder 'nosuch'; did you mean conch_v1 or conch_v15\?"
    ) as caught:
        EncoderConfig(name="nosuch")
    assert "timm:" not in str(caught.value)


def test_a_wrong_preset_is_refused_with_its_place_and_without_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from wsi_ncmi.core.config import read_config; "
        "from wsi_ncmi.core.errors import InputError; from wsi_ncmi.encoders import EncoderConfig\n"
        "try: read_config(EncoderConfig, Path(sys.argv[1]))\n"
        "except InputError as error: print(error)\n"
        "sys.exit('torch' in sys.modules)"
    )
    (tmp_path / "job.yaml").write_text("device: cpu\nname: virchow_2\n")
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "job.yaml")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "'name' (job.yaml, line 2): there is no encoder 'virchow_2'; did you mean virchow2" in ran.stdout


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"name": "timm:resnet18", "mean": (0.5, 0.5, 0.5)},
            "'mean' and 'name': timm:resnet18 brings its own preprocessing",
        ),
        ({"name": "uni_v1", "input_px": 448}, "'input_px' and 'name'"),
        ({"name": "uni_v1", "interpolation": "bicubic"}, "'interpolation' and 'name'"),
        ({"input_px": 224}, "'input_px' and 'name'"),
        ({"weights": "w.pt"}, "has no weights; leave them out"),
        ({"backend": "torch"}, "'backend' and 'name': the descriptor is no network"),
        ({"precision": "fp16"}, "'precision' and 'name': it computes in fp32"),
        ({"device": "cuda"}, "'device' and 'name': it computes on the CPU"),
        ({"name": "onnx:a.onnx", "precision": "bf16"}, "'precision' and 'name': it computes in fp32"),
        ({"name": "onnx:a.onnx", "device": "cuda"}, "'device' and 'name'"),
        ({"name": "onnx:a.onnx", "backend": "openvino"}, "run by ONNX Runtime"),
        (
            {"name": "uni_v1", "precision": "fp16", "device": "cpu"},
            "'precision' and 'device': half precision is for a GPU",
        ),
        ({"name": "uni_v1", "backend": "onnx", "precision": "bf16"}, "computes in fp32, not bf16"),
        ({"name": "uni_v1", "backend": "openvino", "precision": "fp16"}, "fp32 or bf16, not fp16"),
        ({"name": "uni_v1", "backend": "onnx", "device": "cuda"}, "CPU only"),
    ],
)
def test_a_setting_without_an_effect_is_refused_when_the_config_is_made(settings, words):
    with pytest.raises(ValidationError, match=words):
        EncoderConfig(**settings)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("torchvision:squeezenet11", "torchvision:squeezenet1_1"),
        ("plugin:absent", "no encoder"),
        ("timm:resnet_18", "timm:resnet18"),
        ("timm:hf-hub:MahmoodLab/UNI", "no encoder"),
    ],
)
def test_a_name_that_its_package_does_not_know_gets_the_nearest(name, hint):
    with pytest.raises(ValidationError, match=r"no encoder") as caught:
        EncoderConfig(name=name)
    assert hint in str(caught.value)


def test_a_tag_that_timm_does_not_know_is_refused_when_it_is_loaded():
    with pytest.raises(
        InputError, match=r"no encoder 'timm:resnet18.no_such_tag'; did you mean .*timm:resnet18 "
    ):
        load_encoder(EncoderConfig(name="timm:resnet18.no_such_tag"))


@pytest.mark.parametrize("family", ["timm", "torchvision"])
def test_the_names_in_a_packages_source_are_those_that_it_builds(family):
    assert networks_of(family) == {name.partition(":")[2] for name in list_encoders(family)}
    assert networks_of("preset") == frozenset()


@pytest.mark.parametrize("name", ["timm:nope", "torchvision:nope", "plugin:nope", "nosuch", "resnet34"])
def test_a_wrong_name_is_told_without_torch(name):
    code = (
        "import sys; from pydantic import ValidationError; from wsi_ncmi.encoders.config import EncoderConfig\n"
        "try: EncoderConfig(name=sys.argv[1])\n"
        "except ValidationError: sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))\n"
        "sys.exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", code, name], check=False).returncode == 0


def test_folder_names():
    assert encoder_folder_name("torchvision:squeezenet1_1") == "torchvision_squeezenet1_1"
    assert encoder_folder_name("timm:a/b c.d") == "timm_a_b_c.d"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_function_of_the_table_is_there(family):
    row = FAMILIES[family]
    for function in filter(None, (row.load, row.models, row.knows)):
        assert callable(pkgutil.resolve_name(f"wsi_ncmi.encoders.{function}"))


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
