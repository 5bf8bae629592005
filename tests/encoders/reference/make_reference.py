"""Makes the small reference networks of this folder; run by hand where the reference packages are installed.

    python make_reference.py hf     # transformers 4.51.3: ViTModel, Dinov2Model, Dinov2WithRegistersModel
    python make_reference.py names  # transformers 4.51.3: tensors of the full-size models, hf_names.json
    python make_reference.py swin   # timm_ctp 0.5.4, the timm that CTransPath asks for
    python make_reference.py publishers  # TRIDENT's conchv1_5.py, and the packages musk and genbio_pathfm, on the path

``hf_names.json`` holds names and shapes as the published files have them, those of one block standing for
all. Each other file holds a random network's state dict under the package's own names (values that float16 holds
exactly), an input (``__input``) and the package's output for it (``__output``).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent


def fill(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dtype.is_floating_point and "attn_mask" not in name:
                values = torch.randn(tensor.shape, generator=generator) * 0.3
                if name.endswith("running_var"):
                    values = values.abs() + 0.5
                tensor.copy_(values.half().float())


def keep(name: str, model: torch.nn.Module, pixels: torch.Tensor, output: torch.Tensor, version: str) -> None:
    state = {
        key: value.to(torch.float16 if value.dtype.is_floating_point else torch.int16).contiguous()
        for key, value in model.state_dict().items()
        if "attn_mask" not in key
    }
    save_file(
        {**state, "__input": pixels.half(), "__output": output.contiguous()},
        HERE / f"{name}.safetensors",
        metadata={"made_by": version},
    )


def publishers_networks() -> None:
    import conchv1_5
    from genbio_pathfm.model import VisionTransformer
    from musk.torchscale.architecture.config import EncoderConfig
    from musk.torchscale.model.BEiT3 import BEiT3

    class Tower(conchv1_5.CONCHVisionTower):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            tiny = {"patch_size": 2, "img_size": 28, "embed_dim": 16, "depth": 2, "num_heads": 2}
            self.trunk = conchv1_5.VisionTransformer(**tiny, init_values=1.0)
            self.attn_pool_contrast = conchv1_5.AttentionalPooler(24, 16, n_head=2, n_queries=1)
            self.ln_contrast = torch.nn.LayerNorm(24)

    class Musk(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            tiny = {"encoder_embed_dim": 16, "encoder_attention_heads": 2, "encoder_ffn_embed_dim": 64}
            tiny |= {"encoder_layers": 2, "img_size": 12, "patch_size": 4, "vocab_size": 5, "multiway": True}
            self.beit3 = BEiT3(EncoderConfig(**tiny, no_output_layer=True, max_source_positions=4))
            self.vision_head = torch.nn.Linear(16, 16, bias=False)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.beit3(visual_tokens=pixels)["encoder_out"]

    class GenBio(VisionTransformer):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            channels = super().forward(pixels.reshape(-1, 1, *pixels.shape[2:]))["x_norm_clstoken"]
            return channels.reshape(len(pixels), -1)

    tiny = {"img_size": 24, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "ffn_ratio": 4}
    genbio = GenBio(**tiny, layerscale_init=1e-5, qkv_bias=False)
    for name, model, edge in (("conch_v15", Tower(), 56), ("musk", Musk(), 12), ("genbio", genbio, 24)):
        periods = genbio.rope_embed.periods.clone()
        fill(model)
        genbio.rope_embed.periods.copy_(periods)
        pixels = torch.randn(2, 3, edge, edge, generator=torch.Generator().manual_seed(3)).half().float()
        with torch.inference_mode():
            output = model.eval()(pixels)
        keep(name, model, pixels, output, "the publisher's code")


def transformers_networks() -> None:
    import transformers as hf

    common = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4}
    version = f"transformers {hf.__version__}"
    cases = {
        "hf_vit": hf.ViTModel(hf.ViTConfig(**common, image_size=12, intermediate_size=64)),
        "hf_dinov2": hf.Dinov2Model(hf.Dinov2Config(**common, image_size=12)),
        "hf_dinov2_swiglu_larger": hf.Dinov2Model(
            hf.Dinov2Config(**common, image_size=28, use_swiglu_ffn=True)
        ),
        "hf_dinov2_registers": hf.Dinov2WithRegistersModel(
            hf.Dinov2WithRegistersConfig(**common, image_size=12, use_swiglu_ffn=True, num_register_tokens=4)
        ),
    }
    pixels = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3)).half().float()
    for name, model in cases.items():
        fill(model)
        model.eval()
        with torch.no_grad():
            output = model(pixel_values=pixels).last_hidden_state
        keep(name, model, pixels, output, version)


def transformers_names() -> None:
    import transformers as hf

    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    hibou = {"patch_size": 14, "image_size": 224, "use_swiglu_ffn": True}
    with torch.device("meta"):
        models = {
            "phikon": hf.ViTModel(hf.ViTConfig(), add_pooling_layer=False),
            "phikon_v2": hf.Dinov2Model(hf.Dinov2Config(**large, patch_size=16, image_size=224)),
            "hibou_b": hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**hibou)),
            "hibou_l": hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**large, **hibou)),
            "midnight12k": hf.Dinov2Model(
                hf.Dinov2Config(
                    hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, patch_size=14, image_size=518,
                    use_swiglu_ffn=True,
                )
            ),
        }  # fmt: skip
    lists = {}
    for key, model in models.items():
        shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
        depth = model.config.num_hidden_layers
        first = {
            name: shape
            for name, shape in shapes.items()
            if re.match(r"encoder\.layer\.0\.|(?!encoder)", name)
        }
        lists[key] = {"depth": depth, "tensors": first}
        every = {
            name.replace(".0.", f".{block}.", 1) if name.startswith("encoder.") else name: shape
            for block in range(depth)
            for name, shape in first.items()
        }
        assert every == shapes, key
    text = json.dumps({"made_by": f"transformers {hf.__version__}", "models": lists}, indent=1)
    (HERE / "hf_names.json").write_text(text + "\n")


def swin() -> None:
    import timm_ctp
    from timm_ctp.models.swin_transformer import SwinTransformer
    from torch import nn

    class Stem(nn.Module):  # as figure 3 of the paper draws it
        def __init__(self, img_size=224, patch_size=4, in_chans=3, embed_dim=96, norm_layer=None):
            super().__init__()
            self.grid_size = (img_size // 4, img_size // 4)
            self.num_patches = self.grid_size[0] ** 2
            self.proj = nn.Sequential(
                nn.Conv2d(3, embed_dim // 8, 3, 2, 1, bias=False), nn.BatchNorm2d(embed_dim // 8), nn.ReLU(),
                nn.Conv2d(embed_dim // 8, embed_dim // 4, 3, 2, 1, bias=False), nn.BatchNorm2d(embed_dim // 4), nn.ReLU(),
                nn.Conv2d(embed_dim // 4, embed_dim, 1),
            )  # fmt: skip
            self.norm = norm_layer(embed_dim)

        def forward(self, x):
            return self.norm(self.proj(x).flatten(2).transpose(1, 2))

    model = SwinTransformer(
        img_size=56,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=7,
        num_classes=0,
        embed_layer=Stem,
    )
    fill(model)
    model.eval()
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(3)).half().float()
    with torch.no_grad():
        output = model(pixels)
    keep("swin_timm_0_5", model, pixels, output, f"timm_ctp {timm_ctp.__version__}")


if __name__ == "__main__":
    {
        "hf": transformers_networks,
        "names": transformers_names,
        "swin": swin,
        "publishers": publishers_networks,
    }[sys.argv[1]]()
