from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import path_safe
from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.preset_models import TileNetwork
from wsi_ncmi.encoders.presets import Hub, find_preset, presets, read_presets

REFERENCE = Path(__file__).parent / "reference"
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "encoders.md"

ASKED_FOR = {
    "resnet50", "resnet50_trunc", "uni_v1", "uni_v2", "virchow", "virchow2", "gigapath", "hoptimus0", "hoptimus1",
    "h0-mini", "phikon", "phikon_v2", "hibou_b", "hibou_l", "kaiko-vits8", "kaiko-vits16", "kaiko-vitb8", "kaiko-vitb16",
    "kaiko-vitl14", "lunit-vits16", "lunit-vits8", "ctranspath", "conch_v1", "midnight12k", "gpfm",
    "conch_v15", "musk", "keep", "mstar", "openmidnight", "gigapath_flash", "genbio-pathfm",
}  # fmt: skip


def test_every_encoder_asked_for_is_there():
    assert set(presets()) >= ASKED_FOR
    assert all(key == preset.key == path_safe(key) for key, preset in presets().items())


@pytest.fixture(scope="module")
def built():
    made = {}  # variants share a network
    for preset in presets().values():
        description = repr(preset.architecture)
        if description not in made:
            made[description] = build_architecture(preset.architecture, meta=True)
    return {key: made[repr(preset.architecture)] for key, preset in presets().items()}


@pytest.mark.parametrize("key", sorted(presets()))
def test_network_has_the_width_and_parameters_stated(key, built):
    preset = presets()[key]
    assert sum(tensor.numel() for tensor in built[key].parameters()) == preset.parameters
    edge = preset.recipe.resize_px
    with torch.device("meta"), torch.inference_mode():
        network = TileNetwork(built[key].eval(), preset.recipe.crop_px, preset.pooling)
        assert network(torch.zeros(2, 3, edge, edge)).shape == (2, preset.embed_dim)


def _same_number(exact: int, published: str) -> bool:
    """Whether a number rounds to what was published (``85.7M``, a file of ``343MB``) or is it (``85741056``)."""
    if published.isdecimal():
        return exact == int(published)
    digits, unit = re.fullmatch(r"([\d.]+)(MB|GB|M|B)", published).groups()
    scale = {"M": 1e6, "B": 1e9, "MB": 1e6 / 4, "GB": 1e9 / 4}[
        unit
    ]  # a file in bytes, four for each parameter
    places = len(digits.partition(".")[2])
    return f"{exact / scale:.{places}f}" == digits


@pytest.mark.parametrize("key", sorted(key for key, preset in presets().items() if preset.published))
def test_parameters_are_the_published_number(key):
    preset = presets()[key]
    assert _same_number(preset.parameters + preset.unused, preset.published)
    assert preset.published_by


def test_what_conch_leaves_out_is_counted_by_its_layers():
    """CoCa as CONCH configures it: text tower and decoder of 12 layers of 768, vocabulary 32,007, 512 joint."""
    wide, joint, words = 768, 512, 32_007

    def attention(width: int, other: int) -> int:
        # Queries and output, keys and values, and a bias of each.
        return 2 * width * width + 2 * width * other + 4 * width

    mlp = wide * 4 * wide * 2 + 5 * wide
    block = attention(wide, wide) + mlp + 4 * wide
    crossing = block + 2 * wide  # a norm of its own for what is attended to
    text = words * wide + 128 * wide + wide + 12 * block + 2 * wide + wide * joint
    decoder = 12 * block + 12 * crossing + 2 * wide + wide * words
    caption = 256 * wide + attention(wide, wide) + 4 * wide + 2 * wide
    temperature, projection = 1, joint * joint
    assert presets()["conch_v1"].unused == text + decoder + caption + projection + temperature


def test_what_musk_leaves_out_is_counted_by_its_layers():
    """BEiT-3 has a second tower of norms, projections and layers for texts, and two heads of 1,024."""
    wide, words = 1024, 64_010
    norm = 2 * wide
    block = (
        4 * (wide * wide + wide)
        + 3 * norm
        + (wide * 4 * wide + 4 * wide)
        + 8 * wide
        + (4 * wide * wide + wide)
    )
    texts = 24 * block + norm + 1024 * wide + words * wide
    mask_token, fairseq_positions, temperature = wide, 2 * wide, 1
    assert presets()["musk"].unused == texts + mask_token + fairseq_positions + temperature + 2 * wide * wide
    # The number of the publisher's own class, built on the meta device.
    assert presets()["musk"].unused + presets()["musk"].parameters == 675_188_737


def test_numbers_are_compared_to_their_last_digit():
    assert _same_number(85_739_520, "85.7M")
    assert not _same_number(85_764_000, "85.7M")
    assert not _same_number(303_350_785, "303350784")
    assert not _same_number(303_230_976, "1.22GB")  # ViT-L/14 with positions for 224 px, not 518


def test_facts_are_whole_and_honest():
    for preset in presets().values():
        assert preset.licence, preset.key
        assert preset.citation, preset.key
        assert preset.access.endswith("."), preset.key
        assert preset.verified, preset.key
        # Weights that were never here leave something unverified; ImageNet's are torchvision's own.
        assert preset.unverified or preset.weights_key == "resnet50", preset.key
        closed = ("non-commercial", "conditions")
        assert preset.commercial is not any(word in preset.licence for word in closed), preset.key
        assert preset.recipe.crop_px <= preset.recipe.resize_px
        assert (preset.recipe.resize_px - preset.recipe.crop_px) % 2 == 0
        if preset.gated:
            assert "HF_TOKEN" in preset.access
            assert preset.hub is not None
            assert preset.hub.repository in preset.access


def test_the_docs_name_the_presets_whose_card_takes_no_other_grid():
    fixed = [f"`{key}`" for key, preset in presets().items() if preset.fixed_grid]
    assert f"{' and '.join(fixed)}, whose card takes no other" in " ".join(DOCS.read_text("utf-8").split())


def test_variants_share_weights_and_network():
    for key, base in {
        "virchow2-cls": "virchow2", "h0-mini-both": "h0-mini", "midnight12k-cls": "midnight12k",
        "resnet50_trunc": "resnet50",
    }.items():  # fmt: skip
        assert presets()[key].weights_key == base
        assert presets()[base].weights_key == base
        assert presets()[key].recipe == presets()[base].recipe


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("UNI", "uni_v1"), ("virchow_2", "virchow2"), ("H-optimus-0", "hoptimus0"), ("phikonv2", "phikon_v2")],
)
def test_unknown_keys_get_the_nearest(wrong, right):
    with pytest.raises(InputError, match=f"no preset '{wrong}'; did you mean .*{right}"):
        find_preset(wrong)


@pytest.mark.parametrize("name", ["descriptor", "timm:vit_tiny_patch16_224", "file:mine.py:Encoder"])
def test_encoders_without_a_preset_are_said_to_be_none(name):
    with pytest.raises(InputError, match=r"is no preset: .*256 px at 0.5 µm"):
        find_preset(name)


def test_a_key_like_none_is_sent_to_the_list():
    with pytest.raises(InputError, match="encoders list"):
        find_preset("zzz")


def test_every_fact_is_that_of_version_0_1():
    facts = json.loads((REFERENCE / "presets.json").read_text())
    assert list(presets())[: len(facts)] == list(facts)
    for key in facts:
        found = json.loads(json.dumps(dataclasses.asdict(presets()[key])))
        found["width"] = found.pop("embed_dim")
        del found["fixed_grid"]  # of 0.2
        assert found == facts[key]


ENTRY = (
    (resources.files("wsi_ncmi.encoders") / "presets.yaml").read_text("utf-8").partition("resnet50_trunc")[0]
)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("title:", "titel:", "titel"),
        ("tile_px: 256", "tile_px: 256\n  tile_px: 224", "'tile_px' is there twice"),
        ("tile_px: 256", "tile_px: 0", "greater than 0"),
        ("pooling: mean", "pooling: max", "'class', 'mean' or 'both'"),
        ("kind: resnet", "kind: resnest", "architecture"),
        ("licence: BSD-3-Clause", "licence: ''", "licence"),
        ("gated: false", "weights_of: uni", "gated"),
        ("gated: false", "gated: false\n  weights_of: uni", "shares the weights of uni"),
    ],
)
def test_a_wrong_entry_is_refused(before, after, words):
    assert read_presets(ENTRY)["resnet50"].hub == Hub(repository="timm/resnet50.tv_in1k")
    with pytest.raises(ValueError, match=words):
        read_presets(ENTRY.replace(before, after))


def test_help_and_the_descriptor_read_no_presets():
    code = (
        "import sys; from wsi_ncmi.cli.app import app; from wsi_ncmi.encoders import EncoderConfig; "
        "EncoderConfig(); sys.exit('wsi_ncmi.encoders.presets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
