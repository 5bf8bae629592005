from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.presets import presets


def call(*arguments):
    result = CliRunner().invoke(app, ["encoders", *(str(each) for each in arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def file(tmp_path, monkeypatch):
    preset = presets()["uni_v1"]
    arguments = {**preset.architecture.arguments, "depth": 1, "embed_dim": 32, "num_heads": 2}
    architecture = dataclasses.replace(preset.architecture, arguments=arguments)
    monkeypatch.setitem(presets(), "uni_v1", dataclasses.replace(preset, architecture=architecture))
    network = build_architecture(architecture)
    save_file(
        {key: torch.ones(value.shape) for key, value in network.state_dict().items()},
        tmp_path / "a.safetensors",
    )
    monkeypatch.setenv("WSI_NCMI_WEIGHTS", str(tmp_path / "w"))
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("verb", ["list", "show", "fetch", "import", "verify"])
def test_every_verb_has_help_with_an_example(verb):
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert f"Example: wsi-ncmi encoders {verb}" in " ".join(out.split())


def test_import_list_show_verify(file):
    code, out, _ = call("import", file, "--as", "uni_v1")
    assert code == 0
    assert "non-commercial" in out
    assert "weights: " in out
    code, out, _ = call("list")
    assert code == 0
    assert any(line.split()[:3] == ["uni_v1", "here", "1024"] for line in out.splitlines())
    assert "phikon_v2        missing" in out
    code, out, _ = call("show", "uni_v1")
    assert code == 0
    for words in (
        "NOT permitted",
        "UNVERIFIED: ",
        "303,350,784",
        "from file:a.safetensors",
        "doi:10.1038",
        "HF_TOKEN",
    ):
        assert words in out
    code, out, _ = call("verify")
    assert (code, out.splitlines()[-1]) == (0, "1 file whole, 0 bad.")


def test_json(file):
    code, out, _ = call("import", file, "--as", "uni_v1", "--json")
    made = json.loads(out)
    assert (code, made["entry"]["encoder"], made["entry"]["file"]) == (0, "uni_v1", "uni_v1.safetensors")
    states = {row["key"]: row for row in json.loads(call("list", "--json")[1])}
    assert states["uni_v1"]["state"] == "here"
    assert states["uni_v1"]["unverified"] >= 1
    facts = json.loads(call("show", "uni_v1", "--json")[1])
    assert facts["weights"]["sha256"] == made["entry"]["sha256"]
    assert facts["recipe"]["interpolation"] == "bilinear"
    assert json.loads(call("fetch", "uni_v1", "--json")[1]) == {"present": True}
    assert json.loads(call("verify", "--json")[1])["bad"] == 0


def test_an_encoder_of_the_zoo_is_shown_with_its_licence(file):
    code, out, _ = call("show", "lazyslide:phaet")
    assert code == 0
    assert out.splitlines()[0] == "encoder: lazyslide:phaet"
    assert "licence: Waiv custom non-commercial license" in out
    assert "runs code: True" in out


def test_a_tampered_file_ends_in_1(file):
    call("import", file, "--as", "uni_v1")
    made = file.parent / "w" / "uni_v1.safetensors"
    made.write_bytes(made.read_bytes()[:-1] + b"\x07")
    code, out, _ = call("verify", "--quiet")
    assert code == 1
    assert "bad: uni_v1.safetensors (uni_v1): its SHA-256" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "uni"), "did you mean uni_v1"),
        (("fetch", "ctranspath"), "can't be fetched"),
        (("import", "absent.bin", "--as", "uni_v1"), "no file or folder absent.bin"),
        (("verify", "--weights-dir", "absent"), "no weights folder absent"),
        (("show", "lazyslide:midnite"), "did you mean midnight"),
        (("fetch", "lazyslide:omiclip"), "isn't served here: its checkpoint is read as a pickle"),
        (("fetch", "uni_v1", "--trust-remote-code"), "--trust-remote-code is for lazyslide:KEY; uni_v1"),
    ],
)
def test_errors_are_one_sentence(file, arguments, words):
    code, _, err = call(*arguments)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_listing_needs_no_torch():
    import subprocess
    import sys

    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom wsi_ncmi.cli.app import app\n"
        "assert CliRunner().invoke(app, ['encoders', 'list']).exit_code == 0\n"
        "assert CliRunner().invoke(app, ['encoders', 'show', 'uni_v1']).exit_code == 0\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("verb", [["verify"], ["fetch", "uni_v1"], ["import", "a.pt", "--as", "uni_v1"]])
def test_a_verb_that_needs_the_weights_folder_says_how_to_name_it(verb, monkeypatch):
    monkeypatch.delenv("WSI_NCMI_WEIGHTS", raising=False)
    code, _, error = call(*verb)
    assert code == 2
    assert "set WSI_NCMI_WEIGHTS or give --weights-dir" in " ".join(error.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--encoder", "unl_v1"],
            "'encoder.name' (--encoder unl_v1): there is no encoder 'unl_v1'; did you mean uni_v1 or uni_v2?",
        ),
        (["--encoder", "resnet18"], "did you mean resnet50, torchvision:resnet18 or timm:resnet18?"),
        (
            ["--set", "encoder.mean=[0.5,0.5,0.5]"],
            "'encoder.mean' (--set encoder.mean=[0.5,0.5,0.5]) and 'encoder.name' (the default): descriptor brings its own",
        ),
    ],
)
def test_a_wrong_encoder_is_told_before_anything_is_made(tmp_path, options, words):
    (tmp_path / "slides").mkdir()
    arguments = ["extract", str(tmp_path / "slides"), "--out", str(tmp_path / "out"), *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
