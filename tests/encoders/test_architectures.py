"""Our networks and name maps against the packages that the publishers use (``reference/make_reference.py``)."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.architectures import (
    AttentionPool,
    CocaVision,
    ConvStem,
    HalfRotary,
    build_architecture,
)
from wsi_ncmi.encoders.preset_models import TileNetwork
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.tensor_names import to_our_names
from wsi_ncmi.encoders.weights import check_fit, load_strictly

REFERENCE = Path(__file__).parent / "reference"
TINY = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 12}


def _reference(name):
    state = load_file(REFERENCE / f"{name}.safetensors")
    # In half precision on disk, in which the values are exact.
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    return state, state.pop("__input"), state.pop("__output")


def _load(architecture, state):
    network = build_architecture(architecture)
    load_strictly(
        network,
        to_our_names(architecture.names, state, network),
        head=architecture.left_over,
        path=Path("x"),
        name="tiny",
    )
    return network.eval()


def _preset_like(key, **arguments):
    preset = presets()[key].architecture
    return replace(preset, arguments={**preset.arguments, **TINY, **arguments})


@pytest.mark.parametrize(
    ("reference", "architecture"),
    [
        ("hf_vit", _preset_like("phikon")),
        ("hf_dinov2", _preset_like("phikon_v2")),
        (
            "hf_dinov2_swiglu_larger",
            _preset_like("midnight12k", mlp_ratio=6),
        ),  # 2 × (2/3 · 64, rounded up to 48) / 16
        ("hf_dinov2_registers", _preset_like("hibou_b", mlp_ratio=6)),
    ],
)
def test_tokens_equal_those_of_transformers(reference, architecture):
    state, pixels, expected = _reference(reference)
    network = _load(architecture, state)
    with torch.inference_mode():
        torch.testing.assert_close(network(pixels), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("key", ["phikon", "phikon_v2", "hibou_b", "hibou_l", "midnight12k"])
def test_names_of_the_full_size_models_fit(key):
    """Every tensor that transformers' model of the published size has: name, shape and number of values."""
    listed = json.loads((REFERENCE / "hf_names.json").read_text())["models"][key]
    state = {
        name.replace(".0.", f".{block}.", 1) if name.startswith("encoder.") else name: torch.empty(
            shape, device="meta"
        )
        for block in range(listed["depth"])
        for name, shape in listed["tensors"].items()
    }
    preset = presets()[key]
    assert sum(value.numel() for value in state.values()) == int(preset.published)
    network = build_architecture(preset.architecture)
    ours = to_our_names(preset.architecture.names, state, network)
    check_fit(network, ours, head=preset.architecture.left_over, path=Path("x"), name=key)
    del ours["blocks.3.norm2.bias"]
    with pytest.raises(InputError, match="1 missing"):
        check_fit(network, ours, head=preset.architecture.left_over, path=Path("x"), name=key)


def test_conv_stem_swin_equals_the_timm_that_ctranspath_asks_for():
    import timm

    state, pixels, expected = _reference("swin_timm_0_5")
    network = timm.models.swin_transformer.SwinTransformer(
        img_size=56,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=7,
        num_classes=0,
        embed_layer=ConvStem,
    )
    assert any(key.endswith("relative_position_index") for key in state)  # published files carry them
    load_strictly(
        network, to_our_names("timm_0_5", state, network), head=("head.",), path=Path("x"), name="tiny"
    )
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(pixels), expected, rtol=1e-5, atol=2e-5)


def test_a_stem_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="patches of 4 px"):
        ConvStem(patch_size=16)


def test_attention_pool_is_its_equations():
    torch.manual_seed(0)
    pool, width, heads = AttentionPool(8, 12, 2).eval(), 8, 2
    with torch.no_grad():
        for tensor in pool.parameters():
            tensor.normal_()
    tokens = torch.randn(3, 5, 12)
    attn = pool.attn
    normed = nn.functional.layer_norm(tokens, (12,), pool.ln_k.weight, pool.ln_k.bias)
    query = nn.functional.layer_norm(pool.query, (8,), pool.ln_q.weight, pool.ln_q.bias)
    b_q, b_k, b_v = attn.in_proj_bias.chunk(3)
    expected = torch.empty(3, width)
    for n in range(3):
        q, k, v = (
            query @ attn.q_proj_weight.T + b_q,
            normed[n] @ attn.k_proj_weight.T + b_k,
            normed[n] @ attn.v_proj_weight.T + b_v,
        )
        parts = []
        for h in range(heads):
            at = slice(h * 4, (h + 1) * 4)
            parts.append(torch.softmax(q[:, at] @ k[:, at].T / 4**0.5, dim=1) @ v[:, at])
        expected[n] = (torch.cat(parts, dim=1) @ attn.out_proj.weight.T + attn.out_proj.bias)[0]
    with torch.inference_mode():
        torch.testing.assert_close(pool(tokens), expected.detach())
    # The names that CONCH's own pooler has.
    assert set(pool.state_dict()) == {
        "query", "ln_q.weight", "ln_q.bias", "ln_k.weight", "ln_k.bias", "attn.q_proj_weight", "attn.k_proj_weight",
        "attn.v_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias",
    }  # fmt: skip


def test_conch_takes_the_vision_tower_and_leaves_the_rest():
    architecture = presets()["conch_v1"].architecture
    architecture = replace(architecture, arguments={**TINY, "dynamic_img_size": True})
    network = build_architecture(architecture, meta=False)
    state = {f"visual.{key}": torch.randn_like(value) for key, value in network.state_dict().items()}
    rest = ("visual.proj_contrast", "visual.attn_pool_caption.query", "visual.ln_caption.bias", "text.cls_emb", "text_decoder.x", "logit_scale")  # fmt: skip
    loaded = _load(architecture, {**state, **{key: torch.zeros(1) for key in rest}})
    assert torch.equal(loaded.trunk.pos_embed, state["visual.trunk.pos_embed"])
    with pytest.raises(InputError, match="1 unexpected"):
        _load(architecture, {**state, "visual.other": torch.zeros(1)})


def _dinov2_names(network, state):
    """timm's names turned back into those of the original DINOv2, with what timm folds away."""
    back = {}
    for key, value in state.items():
        key = key.replace("reg_token", "register_tokens")
        if "mlp" in key and hasattr(network.blocks[0].mlp, "gate_last"):
            key = key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        back[key] = value
    return {**back, "mask_token": torch.zeros(1, 16)}


@pytest.mark.parametrize("key", ["gpfm", "kaiko-vitl14", "hibou_b", "openmidnight"])
@pytest.mark.parametrize("chunked", [False, True])
def test_dinov2_names_are_mapped_as_timm_maps_them(key, chunked):
    from timm.models.vision_transformer import checkpoint_filter_fn

    architecture = _preset_like(key, **({"mlp_ratio": 6} if key in ("hibou_b", "openmidnight") else {}))
    network = build_architecture(architecture, meta=False)
    torch.manual_seed(1)
    state = {name: torch.randn_like(value) for name, value in network.state_dict().items()}
    if network.no_embed_class:
        state["pos_embed"] = torch.randn(1, 10, 16)
    published = _dinov2_names(network, state)
    expected = checkpoint_filter_fn(dict(published), network)
    if chunked:
        published = {
            name.replace("blocks.", "backbone.blocks.0.", 1): value for name, value in published.items()
        }
    ours = to_our_names(architecture.names, published, network)
    for name in network.state_dict():
        assert torch.equal(ours[name], expected[name]), name
    load_strictly(network, ours, head=architecture.left_over, path=Path("x"), name="tiny")


@pytest.mark.parametrize("names", ["timm", "dinov2"])
def test_positions_for_another_size_are_those_of_timm(names):
    """Kaiko's ViT-L/14: the file is for 518 px, tiles have 224; timm resamples at every forward pass."""
    larger = build_architecture(_preset_like("kaiko-vitl14", img_size=28), meta=False).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for tensor in larger.parameters():
            tensor.normal_(std=0.3)
    state = dict(larger.state_dict())
    if names == "dinov2":
        first = torch.randn(1, 1, 16)
        state = _dinov2_names(larger, {**state, "cls_token": state["cls_token"] - first, "pos_embed": torch.cat([first, state["pos_embed"]], 1)})  # fmt: skip
    network = _load(_preset_like("kaiko-vitl14"), state)
    pixels = torch.randn(2, 3, 12, 12)
    with torch.inference_mode():
        torch.testing.assert_close(network(pixels), larger(pixels), rtol=1e-4, atol=1e-5)


def test_imported_names_stay_and_unknown_ones_are_reported():
    architecture = _preset_like("phikon_v2")
    network = build_architecture(architecture)
    ours = {key: torch.zeros(value.shape) for key, value in network.state_dict().items()}
    assert to_our_names("hf_dinov2", ours, network) == ours
    state, *_ = _reference("hf_dinov2")
    state["encoder.layer.0.attention.attention.kley.weight"] = state.pop(
        "encoder.layer.0.attention.attention.key.weight"
    )
    with pytest.raises(InputError, match=r"1 missing \(blocks\.0\.attn\.qkv\.weight\), 3 unexpected"):
        _load(architecture, state)


def test_resnets_are_torchvisions_own():
    torch.manual_seed(0)
    reference = torchvision.models.resnet50(weights=None).eval()
    with torch.no_grad():
        for name, tensor in reference.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(std=0.1)
    pixels = torch.randn(1, 3, 64, 64)
    seen = {}
    reference.layer3.register_forward_hook(lambda _m, _i, output: seen.update(layer3=output))
    reference.avgpool.register_forward_hook(lambda _m, _i, output: seen.update(whole=output.flatten(1)))
    with torch.inference_mode():
        reference(pixels)
        whole = _load(presets()["resnet50"].architecture, reference.state_dict())
        torch.testing.assert_close(whole(pixels), seen["whole"])
        trunk = _load(presets()["resnet50_trunc"].architecture, reference.state_dict())
        torch.testing.assert_close(trunk(pixels), seen["layer3"].mean(dim=(2, 3)))


class _Tokens(nn.Module):
    num_prefix_tokens = 3

    def forward(self, pixels):
        return pixels[:, 0].reshape(len(pixels), -1)[:, :15].reshape(len(pixels), 5, 3)


def test_pooling_and_crop():
    pixels = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    tokens = _Tokens()(pixels[..., 1:7, 1:7])
    for pooling, expected in (
        ("class", tokens[:, 0]),
        ("mean", tokens[:, 3:].mean(1)),
        ("both", torch.cat([tokens[:, 0], tokens[:, 3:].mean(1)], 1)),
    ):
        assert torch.equal(TileNetwork(_Tokens(), 6, pooling)(pixels), expected)


def test_building_leaves_the_callers_random_state():
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    build_architecture(_preset_like("uni_v1"), meta=False)
    assert torch.equal(torch.random.get_rng_state(), before)


def _equals_the_publisher(reference, network, names, head, *, similar=None):
    state, pixels, expected = _reference(reference)
    ours = to_our_names(names, state, network)
    load_strictly(network, ours, head=head, path=Path("x"), name="tiny")
    with torch.inference_mode():
        found = TileNetwork(network.eval(), pixels.shape[-1], "class")(pixels)
    if expected.ndim == 3:
        expected = expected[:, 0]
    if similar is None:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    else:
        assert nn.functional.cosine_similarity(found, expected).min() > similar
    return found, expected


def test_conch_v15_equals_its_publishers_code():
    """Its positions are resampled twice: to 14 × 14 on reading, to 28 × 28 at every forward pass."""
    tiny = {"patch_size": 2, "img_size": 56, "embed_dim": 16, "depth": 2, "num_heads": 2}
    whole = presets()["conch_v15"].architecture
    trunk = build_architecture(replace(whole, kind="vit", arguments={**whole.arguments, **tiny}), meta=False)
    network = CocaVision(trunk, width=24, heads=2, bias=False)
    _equals_the_publisher("conch_v15", network, "conch_v15", whole.left_over)


def test_positions_of_conch_v15_for_another_size_go_through_its_publishers_grid():
    state, *_ = _reference("conch_v15")
    whole = presets()["conch_v15"].architecture
    tiny = {"patch_size": 2, "img_size": 28, "embed_dim": 16, "depth": 1, "num_heads": 2}
    trunk = build_architecture(replace(whole, kind="vit", arguments={**whole.arguments, **tiny}), meta=False)
    network = CocaVision(trunk, width=24, heads=2, bias=False)
    given = torch.randn(1, 1 + 28 * 28, 16)
    ours = to_our_names("conch_v15", {**state, "trunk.pos_embed": given}, network)["trunk.pos_embed"]
    grid = given[:, 1:].reshape(14, 2, 14, 2, 16)  # halved without antialias: the mean of four neighbours
    torch.testing.assert_close(ours[0, 1:].reshape(14, 14, 16), grid.mean(dim=(1, 3)), rtol=1e-5, atol=1e-6)
    assert torch.equal(ours[:, 0], given[:, 0])


def test_musk_equals_its_publishers_code():
    architecture = _preset_like("musk")
    _equals_the_publisher("musk", build_architecture(architecture), "beit3", architecture.left_over)


def test_genbio_equals_its_publishers_code_to_the_rounding_of_its_queries():
    tiny = {"patch_size": 4, "img_size": 24, "embed_dim": 32, "depth": 2, "num_heads": 2}
    architecture = presets()["genbio-pathfm"].architecture
    architecture = replace(architecture, arguments={**architecture.arguments, **tiny})
    found, expected = _equals_the_publisher(
        "genbio", build_architecture(architecture), "genbio", (), similar=0.9999
    )
    assert (found - expected).abs().max() < 0.05
    # The rounding of the positions is the publisher's: without it the difference is larger.
    exact = build_architecture(architecture, meta=False)
    exact.trunk.rope = build_architecture(architecture, meta=False).trunk.rope
    exact.trunk.rope.embed = torch.cat([_rotary(6, 16).sin(), _rotary(6, 16).cos()], -1)
    other, _ = _equals_the_publisher("genbio", exact, "genbio", (), similar=0.99)
    assert (other - expected).norm() > (found - expected).norm()


def _rotary(edge, dim):
    """Angles of rotary positions in float64, place by place."""
    rows = []
    for row in range(edge):
        for column in range(edge):
            angles = [
                2 * math.pi * (2 * (at + 0.5) / edge - 1) / 100 ** (2 * k / (dim / 2))
                for at in (row, column)
                for k in range(dim // 4)
            ]
            rows.append(angles * 2)
    return torch.tensor(rows, dtype=torch.float64).float()


def test_the_positions_of_genbio_are_rounded_rotary_ones():
    embed = HalfRotary(14, 64).embed
    angles = _rotary(14, 64)
    torch.testing.assert_close(embed, torch.cat([angles.sin(), angles.cos()], -1), rtol=0, atol=0.05)
    assert torch.equal(embed, embed.bfloat16().float())


def test_keep_is_the_normalised_projection_of_the_class_token():
    whole = presets()["keep"].architecture
    architecture = replace(whole, arguments={**whole.arguments, **TINY})
    network = build_architecture(architecture, meta=False)
    torch.manual_seed(5)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.normal_(std=0.3)
    state = {
        key.replace("ls1.gamma", "ls1.weight").replace("ls2.gamma", "ls2.weight"): value
        for key, value in network.state_dict().items()
    }
    assert "visual.blocks.0.ls1.weight" in state  # KEEP's own name
    rest = {"text.embeddings.word_embeddings.weight": torch.zeros(1), "logit_scale": torch.zeros(())}
    loaded = _load(architecture, {**state, **rest})
    pixels = torch.randn(2, 3, 12, 12)
    with torch.inference_mode():
        token = loaded.visual(pixels)[:, 0]
        first, second = loaded.visual_head[0], loaded.visual_head[2]
        hidden = token @ first.weight.T + first.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        expected = hidden @ second.weight.T + second.bias
        expected = expected / expected.square().sum(1, keepdim=True).sqrt()
        torch.testing.assert_close(loaded(pixels), expected)
