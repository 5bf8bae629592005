"""Slide vectors from tile features: what each encoder is given, what is written, what is refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.encoders.test_zoo import files_of, hold
from tests.features.interchange import makers
from tests.mil.peers import PeerAbmil
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import slide_encoders
from wsi_ncmi.encoders.slide_encoders import FEATHER, NEEDS, TileNeeds, check_tiles, needs_of, zoo_call
from wsi_ncmi.encoders.zoo import zoo_models
from wsi_ncmi.extraction.ledger import read_ledger
from wsi_ncmi.features import open_features_file
from wsi_ncmi.features.verify import verify_file
from wsi_ncmi.losses import build_loss, loss_config
from wsi_ncmi.mil import build_aggregator, model_config
from wsi_ncmi.prediction import Ensemble, ModelBundle, PredictConfig
from wsi_ncmi.prediction.extraction_settings import slide_encoder_of, tile_origin
from wsi_ncmi.prediction.slide_records import SlideRecords
from wsi_ncmi.slides import write_slides_csv
from wsi_ncmi.training import TrainedModel
from wsi_ncmi.workflows.encode_slides import EncodeSlidesConfig, encode_slides

D = makers.WIDTH


def tiles(tmp_path, encoder="uni_v1", **settings):
    """Tile features of three slides, one of them empty."""
    folder = tmp_path / "out" / "features" / encoder
    for number, slide_id in enumerate(("a", "b", "empty")):
        n = 0 if slide_id == "empty" else 7 + number
        makers.ours(folder, slide_id, n=n, seed=number, encoder=encoder, **settings)
    return folder


def encode(tmp_path, features, **settings):
    return encode_slides(EncodeSlidesConfig(features=features, out=tmp_path / "v", **settings))


def test_the_mean_is_one_float16_vector_a_slide_in_a_whole_file_of_ours(tmp_path) -> None:
    features = tiles(tmp_path)
    result = encode(tmp_path, features)
    assert result.failures == ()
    source, of_tiles = open_bag_source(tmp_path / "v"), open_bag_source(features)
    assert (source.level, source.encoder, source.width) == ("slide", "mean-uni_v1", D)
    assert dict(zip(source.slide_ids, source.lengths.tolist(), strict=True)) == {"a": 1, "b": 1, "empty": 0}
    expected = of_tiles.load("b").astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(source.load("b")[0], expected, rtol=1e-3, atol=1e-4)
    file = open_features_file(tmp_path / "v" / "features" / "mean-uni_v1" / "a.h5")
    there = open_features_file(features / "a.h5")
    assert file.tile_features["encoder"] == "uni_v1"
    assert file.tile_features["sha256"] == there.attrs["sha256"]
    assert file.identity.slide_fingerprint == there.identity.slide_fingerprint
    assert (file.identity.mpp_target, file.identity.tile_px) == (0.5, 256)
    assert not verify_file(file.path).problem
    rows = {row.slide_id: row for row in read_ledger(result.files["ledger"])}
    assert (rows["a"].tiles, rows["empty"].reason) == (7, "no tissue: the features hold no tile")


def test_files_of_tiles_stay_as_they_were(tmp_path) -> None:
    """The new attributes are those of vectors alone."""
    attrs = open_features_file(tiles(tmp_path) / "a.h5").attrs
    assert "level" not in attrs
    assert "tile_features" not in attrs


def test_what_is_there_is_kept_and_another_identity_is_not_written_over(tmp_path) -> None:
    features = tiles(tmp_path)
    encode(tmp_path, features)
    path = tmp_path / "v" / "features" / "mean-uni_v1" / "a.h5"
    before = path.read_bytes()
    again = encode(tmp_path, features)
    assert "3 there already" in again.notes[0]
    makers.ours(features, "a", n=7, seed=9)  # the same settings, other numbers
    (failure,) = encode(tmp_path, features).failures
    assert "the tiles' features are others" in failure
    assert path.read_bytes() == before
    assert encode(tmp_path, features, overwrite=True).failures == ()
    assert path.read_bytes() != before


def test_a_feather_is_the_published_models_vector(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(slide_encoders.FEATHER, D, TileNeeds(("conch_v15",), D, 512, 0.5, 512))
    peer = PeerAbmil(D, 0, hidden=10, width=8)
    save_file({f"model.{name}": t for name, t in peer.state_dict().items()}, tmp_path / "model.safetensors")
    features = tiles(tmp_path, "conch_v15", tile_px=512)
    result = encode(tmp_path, features, encoder="feather", weights=tmp_path / "model.safetensors")
    assert result.failures == ()
    bag = torch.from_numpy(open_bag_source(features).load("a").astype(np.float32))
    with torch.no_grad():
        h = peer.patch_embed(bag)
        scores = peer.global_attn(h)
        expected = (torch.softmax(scores, dim=0) * h).sum(0)
    found = open_bag_source(tmp_path / "v").load("a")[0]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)


class Stand:
    """A stand-in for the package's object: notes what it is given."""

    def encode_slide(self, embeddings, coords=None, **settings):
        self.given = (embeddings, coords, settings)
        return {"embeddings": embeddings.mean(dim=-2)}


@pytest.mark.parametrize("name", NEEDS)
def test_each_zoo_encoder_gets_places_in_its_own_unit(name) -> None:
    made = Stand()
    x, corners = torch.randn(3, 5), torch.tensor([[0, 0], [1024, 0], [2048, 1024]])
    vector = zoo_call(name, made)(x, corners, 1024.0)
    torch.testing.assert_close(vector.reshape(-1), x.mean(0))
    embeddings, coords, settings = made.given
    assert embeddings.shape == ((3, 5) if name == "lazyslide:moozy" else (1, 3, 5))
    if "gigapath" in name:  # its grid is of tiles of 256 px
        assert coords[0].tolist() == [[0, 0], [256, 0], [512, 256]]
    elif name == "lazyslide:titan":
        assert (coords[0].tolist(), coords.dtype, settings) == (
            corners.tolist(),
            torch.int64,
            {"base_tile_size": 1024},
        )
    elif name == "lazyslide:moozy":
        assert (coords.tolist(), settings) == (corners.tolist(), {"patch_sizes": 1024.0})
    else:
        assert coords is None
        assert not NEEDS[name].placed


def test_a_zoo_encoder_writes_its_vectors_with_its_own_identity(tmp_path, monkeypatch) -> None:
    needs = TileNeeds(("conch_v15",), D, 512, 0.5, D, placed=True)
    monkeypatch.setitem(slide_encoders.NEEDS, "lazyslide:titan", needs)
    made, note = Stand(), "lazyslide-models 0.1.0 titan"

    def opened(name, weights_dir, device):
        return slide_encoders.SlideEncoder(
            name, zoo_call(name, made), needs, "ab" * 32, note, "CC-BY-NC-ND-4.0"
        )

    monkeypatch.setattr("wsi_ncmi.workflows.encode_slides.open_zoo_slide_encoder", opened)
    features = tiles(tmp_path, "conch_v15", tile_px=512)
    result = encode(tmp_path, features, encoder="lazyslide:titan", device="cpu")
    assert result.notes[-1] == "Licence of lazyslide:titan: CC-BY-NC-ND-4.0."
    file = open_features_file(result.files["features"] / "b.h5")
    assert (file.identity.encoder, file.identity.encoder_weights_sha256) == ("lazyslide:titan", "ab" * 32)
    told = json.loads(file.identity.transform)
    assert (told["note"], told["tiles"]["encoder"]) == (note, "conch_v15")
    assert made.given[2] == {"base_tile_size": 1024}  # 512 px at 0.5 of a slide at 0.25


GRID = {"encoder": "conch_v15", "mpp_target": 0.5, "tile_px": 512}


@pytest.mark.parametrize(
    ("tiles_are", "width", "words"),
    [
        (
            GRID | {"encoder": "uni_v1"},
            768,
            "takes the features of conch_v15 or lazyslide:conch_v1.5, these are of uni_v1",
        ),
        (GRID, 512, "takes features of width 768"),
        (
            GRID | {"mpp_target": 1.0},
            768,
            "512 px at 0.5 µm per pixel, these are 512 px at 1; .*--allow-other-grid",
        ),
        (GRID | {"tile_px": 256}, 768, "these are 256 px at 0.5; extract with --mpp 0.5 --tile-px 512"),
    ],
)
def test_tiles_of_another_kind_are_refused(tiles_are, width, words) -> None:
    needs = NEEDS["lazyslide:titan"]
    assert check_tiles("lazyslide:titan", needs, GRID, 768) == ""
    with pytest.raises(InputError, match=words):
        check_tiles("lazyslide:titan", needs, tiles_are, width)


def test_another_grid_is_accepted_with_a_warning(caplog) -> None:
    told = check_tiles("x", NEEDS["lazyslide:titan"], GRID | {"mpp_target": 1.0}, 768, other_grid=True)
    assert "these are 512 px at 1." in told


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"encoder": "titan"}, "There is no slide encoder 'titan'; known are mean, feather, lazyslide:titan"),
        ({"encoder": "lazyslide:uni"}, "is a tile encoder"),
        ({"encoder": "lazyslide:prism2"}, "needs flash_attn|isn't served by encode-slides"),
        ({"encoder": "lazyslide:titan"}, "takes the features of conch_v15"),
        ({"encoder": "feather"}, "--weights FILE goes with"),
        ({"encoder": "mean", "weights": "x.pt"}, "--weights FILE goes with"),
    ],
)
def test_wrong_encoders_are_told_before_any_work(tmp_path, settings, words) -> None:
    with pytest.raises(InputError, match=words):
        encode(tmp_path, tiles(tmp_path), **settings)
    assert not (tmp_path / "v").exists()


def test_features_of_another_tool_and_vectors_are_refused(tmp_path) -> None:
    makers.clam(tmp_path / "clam", "a")
    with pytest.raises(InputError, match=r"wsi-ncmi convert .* --to wsi-ncmi"):
        encode(tmp_path, tmp_path / "clam")
    encode(tmp_path, tiles(tmp_path))
    with pytest.raises(InputError, match="holds one vector a slide already"):
        encode_slides(EncodeSlidesConfig(features=tmp_path / "v", out=tmp_path / "w"))


def test_every_slide_encoder_of_the_zoo_is_known_here() -> None:
    served = {model.name for model in zoo_models().values() if model.slide and not model.refused}
    assert set(NEEDS) <= served
    assert served - set(NEEDS) == {"lazyslide:prism2"}
    presets = {model.preset for model in zoo_models().values()}
    assert {needs.encoders[0] for needs in (*NEEDS.values(), *FEATHER.values())} - presets <= {
        "conch_v1", "ctranspath_chief", "lazyslide:lunit-dino-s8-moozy",
    }  # fmt: skip
    with pytest.raises(InputError, match="titan"):
        needs_of("lazyslide:titann")


def test_predict_knows_the_tiles_under_a_models_vectors(tmp_path) -> None:
    encode(tmp_path, tiles(tmp_path))
    origin = dict(open_bag_source(tmp_path / "v").identity)
    assert origin["level"] == "slide"
    below = tile_origin(origin, "the model m")
    assert (below["encoder"], below["mpp_target"], below["transform"]) == ("uni_v1", 0.5, "t")
    config = PredictConfig(slides=tmp_path, model=tmp_path, out=tmp_path)
    encoder = slide_encoder_of(origin, config, "the model m")
    assert encoder is not None
    assert encoder.name == "mean-uni_v1"
    assert slide_encoder_of(below, config, "the model m") is None
    with pytest.raises(InputError, match=r"vectors of slides, which .*encode-slides.* didn't make"):
        tile_origin({"name": "titan", "level": "slide"}, "the model m")
    with pytest.raises(InputError, match="vectors by feather, which predict can't make"):
        slide_encoder_of({**origin, "encoder": "feather"}, config, "the model m")


def test_a_failing_encoder_costs_its_slide_alone(tmp_path, monkeypatch) -> None:
    def fails(features, *_):
        if len(features) == 7:
            raise RuntimeError("no memory")
        return features[0] * torch.nan if len(features) == 99 else features.mean(0)

    made = replace(slide_encoders.mean_encoder("uni_v1"), encode=fails)
    monkeypatch.setattr("wsi_ncmi.workflows.encode_slides.mean_encoder", lambda _: made)
    result = encode(tmp_path, tiles(tmp_path))
    assert result.failures == ("a: mean-uni_v1 fails on 7 tiles (no memory).",)
    assert (tmp_path / "v" / "features" / "mean-uni_v1" / "b.h5").is_file()


class Pooled(torch.nn.Linear):
    """Tiles (N, D) to (1, 4), as CHIEF's program does it."""

    def __init__(self) -> None:
        super().__init__(D, 4)

    def forward(self, tiles):
        return super().forward(tiles.mean(0, keepdim=True))


def test_a_program_of_the_zoo_encodes_from_its_hashed_snapshot(tmp_path, monkeypatch) -> None:
    """CHIEF's class of the package itself, on stand-in weights."""
    key = "chief-slide-encoder"
    monkeypatch.setitem(
        slide_encoders.NEEDS, f"lazyslide:{key}", TileNeeds(("ctranspath_chief",), D, 256, 1.0, 4)
    )
    files = files_of(tmp_path / "weights", key) / "CHIEF"
    files.mkdir()
    network = Pooled().eval()
    rows = {0: torch.export.Dim("n", min=2, max=999)}
    program = torch.export.export(network, (torch.zeros(5, D),), dynamic_shapes=(rows,))
    torch.export.save(program, files / "CHIEF_slide_encoder_exported.pt2")
    hold(tmp_path / "weights", key, "AGPL-3.0")
    features = tiles(tmp_path, "ctranspath_chief", mpp_target=1.0)
    with pytest.raises(InputError, match="needs its snapshot"):
        encode(tmp_path, features, encoder=f"lazyslide:{key}")
    settings = {"encoder": f"lazyslide:{key}", "device": "cpu", "weights_dir": tmp_path / "weights"}
    result = encode(tmp_path, features, **settings)
    assert result.failures == ()
    bag = torch.from_numpy(open_bag_source(features).load("a").astype(np.float32))
    found = open_bag_source(tmp_path / "v").load("a")[0]
    np.testing.assert_allclose(found, network(bag)[0].detach(), rtol=2e-3, atol=1e-3)
    told = open_features_file(result.files["features"] / "a.h5").identity
    assert "CHIEF_slide_encoder_exported.pt2 sha256" in json.loads(told.transform)["note"]


def test_predict_gives_a_model_of_vectors_the_vector_of_the_slide(tmp_path) -> None:
    features = tiles(tmp_path)
    encode(tmp_path, features)
    torch.manual_seed(0)
    criterion = build_loss(loss_config("ce"), 2, D, (1, 1)).eval()
    about = {"model": {"name": "linear"}, "weights_sha256": "ab"}
    model = TrainedModel(build_aggregator(model_config("linear"), D).eval(), criterion, ("x", "y"), about)
    origin = dict(open_bag_source(tmp_path / "v").identity)
    bundle = ModelBundle(Ensemble((model,), ("x", "y"), origin, "m"))
    write_slides_csv([], tmp_path / "slides.csv")
    config = PredictConfig(slides=tmp_path, model=tmp_path, out=tmp_path / "pred")
    (tmp_path / "pred").mkdir()
    records = SlideRecords(
        bundle, config, features=features, slides=tmp_path / "slides.csv",
        timed=lambda _: contextlib.nullcontext(), slide_encoder=slide_encoder_of(origin, config, "the model m"),
    )  # fmt: skip
    found, problem, _ = records.predict("b")
    assert (problem, found.tiles) == ("", 8)
    expected = bundle.predict(open_bag_source(tmp_path / "v").load("b")).probabilities
    np.testing.assert_allclose([found.probabilities[name] for name in ("x", "y")], expected)
