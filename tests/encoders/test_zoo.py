"""The encoders of lazyslide-models: the package's own classes, built from snapshots of small stand-in weights."""

from __future__ import annotations

import datetime
import json
import socket
from dataclasses import asdict, replace

import lazyslide_models
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torchvision.transforms.v2.functional import resize_image
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTImageProcessor, ViTModel

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import sha256_file, write_json
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.encoders.encoder_files import find_snapshot
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.weights_folder import ManifestEntry, record_entry, verify_weights_folder
from wsi_ncmi.encoders.zoo import Snapshot, find_zoo_model, listing_name, zoo_keys, zoo_models
from wsi_ncmi.encoders.zoo_models import _of_transform, open_zoo

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was asked")

    for call in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, call, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def tiles():
    return np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)


def hold(folder, key, licence="MIT"):
    """Writes listing and manifest of the files that stand in ``folder/lazyslide_KEY``, as fetch does."""
    model = zoo_models()[key]
    files = folder / listing_name(model).removesuffix(".json")
    listed = {
        str(path.relative_to(files)): sha256_file(path) for path in sorted(files.rglob("*")) if path.is_file()
    }
    listing = folder / listing_name(model)
    write_json(listing, asdict(Snapshot(model.name, model.repository, COMMIT, licence, listed)))
    digest, today = sha256_file(listing), datetime.date(2026, 1, 1).isoformat()
    record_entry(
        folder,
        ManifestEntry(
            listing.name, model.name, digest, listing.stat().st_size, f"hub:{model.repository}@{COMMIT}",
            digest, licence, today, 1,
        ),
    )  # fmt: skip
    return listing


def files_of(folder, key):
    files = folder / listing_name(zoo_models()[key]).removesuffix(".json")
    files.mkdir(parents=True)
    return files


def dinov2(folder, **more):
    torch.manual_seed(0)
    model = Dinov2Model(Dinov2Config(**SMALL, image_size=224, patch_size=14, **more)).eval()
    model.save_pretrained(folder)
    return model


def _options(key, folder, **more):
    return EncoderConfig(name=f"lazyslide:{key}", device="cpu", batch_size=3, weights=folder, **more)


def _normalised(tiles, mean, std):
    pixels = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def test_the_table_is_the_registry_of_the_package():
    tasks = {
        key: {task.value for task in (model.task if isinstance(model.task, list) else [model.task])}
        for key, model in lazyslide_models.MODEL_REGISTRY.items()
    }
    encoders = {key for key, found in tasks.items() if found & {"vision", "multimodal", "slide_encoder"}}
    assert set(zoo_models()) == encoders
    for key, model in zoo_models().items():
        assert model.slide is ("slide_encoder" in tasks[key] and key != "conch_v1.5"), key
        assert bool(model.repository) is not bool(model.refused), key
        assert not model.preset or model.preset in presets(), key
        ours = presets().get(model.preset)
        card = lazyslide_models.MODEL_REGISTRY[key]
        if ours and card.encode_dim:
            assert ours.embed_dim == card.encode_dim, key
        if ours and ours.hub and model.repository and key != "conch_v1.5":  # TITAN's repository holds it, too
            assert ours.hub.repository.lower() == model.repository.lower(), key
        if card.hf_url and model.repository and key != "madeleine":  # which its makers export themselves
            assert card.hf_url.lower().endswith(model.repository.lower()), key
        assert card.license, key


def test_an_encoder_of_transformers_gives_its_own_numbers(tmp_path, tiles):
    reference = dinov2(files_of(tmp_path, "midnight"))
    hold(tmp_path, "midnight", "MIT")
    encoder = load_encoder(_options("midnight", tmp_path))
    with torch.inference_mode():
        hidden = reference(_normalised(tiles, (0.5,) * 3, (0.5,) * 3)).last_hidden_state
    expected = torch.cat([hidden[:, 0], hidden[:, 1:].mean(1)], 1)
    np.testing.assert_allclose(encoder.encode(tiles), expected.numpy(), rtol=1e-4, atol=1e-5)
    info = encoder.info
    assert (info.name, info.embed_dim, info.licence) == ("lazyslide:midnight", 32, "MIT")
    assert info.weights_source == f"hub:kaiko-ai/midnight@{COMMIT}"
    assert info.transform == (
        "resize 224 bilinear antialias; mean 0.5,0.5,0.5; std 0.5,0.5,0.5; "
        f"lazyslide-models {lazyslide_models.__version__} midnight"
    )
    assert not constants.HF_HUB_OFFLINE  # as it was before


def test_an_encoder_of_timm_gives_its_own_numbers(tmp_path, tiles):
    import timm

    files = files_of(tmp_path, "lunit-dino-s16")
    torch.manual_seed(0)
    arguments = {"embed_dim": 16, "depth": 1, "num_heads": 2}
    network = timm.create_model("vit_small_patch16_224", num_classes=0, **arguments).eval()
    save_file(network.state_dict(), files / "model.safetensors")
    config = {"architecture": "vit_small_patch16_224", "num_classes": 0, "model_args": arguments}
    (files / "config.json").write_text(json.dumps({**config, "pretrained_cfg": {"num_classes": 0}}))
    hold(tmp_path, "lunit-dino-s16")
    encoder = load_encoder(_options("lunit-dino-s16", tmp_path))
    recipe = presets()["lunit-vits16"].recipe
    crop = lazyslide_models.MODEL_REGISTRY["lunit-dino-s16"].transform_kws
    assert crop == {"mean": recipe.mean, "std": recipe.std}  # the package crops nothing
    with torch.inference_mode():
        expected = network(_normalised(tiles, recipe.mean, recipe.std))
    np.testing.assert_allclose(encoder.encode(tiles), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_crop_of_the_package_is_taken_over():
    stated = lazyslide_models.MODEL_REGISTRY["gigapath-flash"].transform_kws
    transform = lazyslide_models._utils.get_default_transform((224, 224), **stated)
    found, crop_px = _of_transform(transform.transforms, "x")
    assert (found.input_px, crop_px, found.interpolation) == (256, 224, "bicubic")
    assert found.note == "centre crop 224; x"


def test_a_processor_of_transformers_is_taken_over(tmp_path):
    files = files_of(tmp_path, "phikon")
    torch.manual_seed(0)
    reference = ViTModel(ViTConfig(**SMALL, image_size=224, patch_size=16), add_pooling_layer=False).eval()
    reference.save_pretrained(files)
    ViTImageProcessor(image_mean=[0.4] * 3, image_std=[0.2] * 3, resample=2).save_pretrained(files)
    hold(tmp_path, "phikon")
    encoder = load_encoder(_options("phikon", tmp_path))
    larger = np.random.default_rng(1).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    small = resize_image(torch.from_numpy(larger).permute(0, 3, 1, 2), [224, 224], antialias=True)
    with torch.inference_mode():
        pixels = _normalised(small.permute(0, 2, 3, 1).numpy(), (0.4,) * 3, (0.2,) * 3)
        expected = reference(pixels).last_hidden_state[:, 0]
    np.testing.assert_allclose(encoder.encode(larger), expected.numpy(), rtol=1e-4, atol=1e-5)


CODE = """
from transformers import Dinov2Config, Dinov2Model, PreTrainedModel
from .helper import scale

class Config(Dinov2Config):
    model_type = "standin"
    pixel_mean, pixel_std = [0.5] * 3, [0.25] * 3

class Wrapped(PreTrainedModel):
    config_class = Config
    def __init__(self, config):
        super().__init__(config)
        self.inner = Dinov2Model(config)
        self.post_init()
    def forward(self, pixel_values):
        out = self.inner(pixel_values)
        out["pooler_output"] = scale(out.last_hidden_state[:, 0])
        return out
"""


@pytest.fixture
def with_code(tmp_path):
    files = files_of(tmp_path, "phaet")
    torch.manual_seed(0)
    config = Dinov2Config(**SMALL, image_size=224, patch_size=14)
    inner = Dinov2Model(config).eval()
    save_file(
        {f"inner.{key}": value for key, value in inner.state_dict().items()}, files / "model.safetensors"
    )
    written = {**config.to_dict(), "model_type": "standin", "architectures": ["Wrapped"]}
    written["auto_map"] = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Wrapped"}
    (files / "config.json").write_text(json.dumps(written))
    (files / "modeling.py").write_text(CODE)
    (files / "helper.py").write_text("def scale(x):\n    return 3 * x\n")
    hold(tmp_path, "phaet")
    return tmp_path, inner


def test_code_is_run_from_the_hashed_snapshot_alone(with_code, tiles, caplog):
    folder, inner = with_code
    encoder = load_encoder(_options("phaet", folder))
    with torch.inference_mode():
        expected = 3 * inner(_normalised(tiles, (0.5,) * 3, (0.25,) * 3)).last_hidden_state[:, 0]
    np.testing.assert_allclose(encoder.encode(tiles), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert f"runs the code of wearewaiv/phaet at {COMMIT}" in caplog.text
    digest = sha256_file(folder / "lazyslide_phaet" / "modeling.py")
    assert f"modeling.py sha256 {digest}" in encoder.info.transform


def test_changed_code_is_never_run(with_code):
    folder, _ = with_code
    helper = folder / "lazyslide_phaet" / "helper.py"
    helper.write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n")
    with pytest.raises(InputError, match=r"refused: its file helper\.py was changed"):
        load_encoder(_options("phaet", folder))
    assert not (folder / "ran").exists()
    assert next(problem for _, problem in verify_weights_folder(folder)).startswith(
        "its file helper.py was changed"
    )
    helper.unlink()
    with pytest.raises(InputError, match=r"its file helper\.py is missing"):
        load_encoder(_options("phaet", folder))


def test_a_file_that_was_not_fetched_is_not_looked_for_elsewhere(tmp_path):
    dinov2(files_of(tmp_path, "midnight"))
    (tmp_path / "lazyslide_midnight" / "config.json").unlink()
    hold(tmp_path, "midnight")
    with pytest.raises(
        InputError, match=r"can't build lazyslide:midnight from its snapshot .*fetch it again"
    ):
        load_encoder(_options("midnight", tmp_path))


def test_weights_with_python_objects_are_refused(tmp_path):
    torch.save({"a": np.random.Generator}, files_of(tmp_path, "gigapath-flash") / "pytorch_model.bin")
    hold(tmp_path, "gigapath-flash")
    with pytest.raises(InputError, match=r"can't build lazyslide:gigapath-flash .*UnpicklingError"):
        load_encoder(_options("gigapath-flash", tmp_path))


def test_a_listing_must_be_the_manifests(tmp_path):
    dinov2(files_of(tmp_path, "midnight"))
    listing = hold(tmp_path, "midnight")
    content = json.loads(listing.read_text())
    listing.write_text(json.dumps({**content, "revision": "f" * 40}))
    with pytest.raises(InputError, match="refused"):
        load_encoder(_options("midnight", tmp_path))
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(InputError, match="is in no manifest"):
        open_zoo(find_zoo_model("midnight"), listing)
    with pytest.raises(
        InputError, match=r"has none: set WSI_NCMI_WEIGHTS .*encoders fetch lazyslide:midnight"
    ):
        find_snapshot(find_zoo_model("midnight"), tmp_path)


def test_a_listing_stays_inside_its_folder(tmp_path):
    dinov2(files_of(tmp_path, "midnight"))
    listing = hold(tmp_path, "midnight")
    content = json.loads(listing.read_text())
    for name in ("../manifest.json", "/etc/hostname"):
        listing.write_text(json.dumps({**content, "files": {name: "0" * 64}}))
        with pytest.raises(InputError, match="lies outside the snapshot"):
            open_zoo(find_zoo_model("midnight"), listing)


def test_a_slide_encoder_is_opened_by_the_same_door(tmp_path, monkeypatch):
    """The package's class runs a program (torch.export); the snapshot's bytes are proven before."""
    files = files_of(tmp_path, "chief-slide-encoder") / "CHIEF"
    files.mkdir()
    network = torch.nn.Linear(8, 4).eval()
    program = torch.export.export(
        network, (torch.zeros(5, 8),), dynamic_shapes=({0: torch.export.Dim("n", min=2, max=999)},)
    )
    torch.export.save(program, files / "CHIEF_slide_encoder_exported.pt2")
    listing = hold(tmp_path, "chief-slide-encoder", "AGPL-3.0")
    zoo = open_zoo(find_zoo_model("chief-slide-encoder", slide=True), listing)
    features = torch.randn(7, 8)
    found = zoo.object.encode_slide(features)["embeddings"]
    torch.testing.assert_close(found[0].detach(), network(features).detach())
    assert zoo.snapshot.licence == "AGPL-3.0"
    assert "CHIEF_slide_encoder_exported.pt2 sha256" in zoo.note
    assert len(zoo.sha256) == 64
    assert zoo_models()["chief-slide-encoder"].slide


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lazyslide:midnite", "did you mean midnight"),
        ("lazyslide:titan", "is a slide encoder; use it with wsi-ncmi encode-slides"),
        ("lazyslide:chief", "isn't served here: it is published as a program.*preset ctranspath_chief"),
        ("lazyslide:omiclip", "isn't served here: its checkpoint is read as a pickle.*use another encoder"),
        ("lazyslide:", "there is no encoder 'lazyslide:'"),
    ],
)
def test_what_is_not_served_is_told_when_the_name_is_read(name, words):
    with pytest.raises(ValueError, match=words):
        EncoderConfig(name=name)


def test_packages_beside_the_extra_are_named():
    with pytest.raises(InputError, match="lazyslide:moozy needs moozy, which the extra zoo doesn't bring"):
        find_zoo_model("moozy")


def test_the_preparation_is_the_encoders_own(tmp_path):
    with pytest.raises(ValueError, match="brings its own preprocessing"):
        _options("midnight", tmp_path, input_px=256)


def test_the_grid_is_that_of_the_preset_of_the_same_network():
    from wsi_ncmi.extraction.encoder_grid import encoder_grid
    from wsi_ncmi.tiling.config import GridConfig

    for key in zoo_keys():
        grid = encoder_grid(GridConfig(), f"lazyslide:{key}")
        ours = presets().get(zoo_models()[key].preset)
        assert (grid.mpp, grid.tile_px) == ((ours.mpp[0], ours.tile_px) if ours else (0.5, 256)), key
    assert replace(find_zoo_model("midnight"), key="x").name == "lazyslide:x"
