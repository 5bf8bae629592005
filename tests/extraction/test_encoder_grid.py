"""Resolution and tile size are the encoder's own unless said otherwise, and another choice is never silent."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import nn

from tests.extraction.conftest import write_slide
from wsi_ncmi.core.config import config_from
from wsi_ncmi.core.errors import IdentityConflictError, InputError
from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.extraction.config import ExecutionConfig, ExtractConfig
from wsi_ncmi.extraction.encoder_grid import encoder_grid, other_grid
from wsi_ncmi.extraction.ledger import read_ledger
from wsi_ncmi.extraction.planning import grids_of
from wsi_ncmi.features import open_features_file
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.workflows import extract

FIXED = ("hoptimus0",)


def configured(key: str, further_mpp: tuple[float, ...] = (), **grid: object) -> ExtractConfig:
    values = {"encoder": {"name": key}, "grid": grid, "further_mpp": further_mpp}
    return config_from(ExtractConfig, values, "the test")


@pytest.mark.parametrize("key", sorted(presets()))
def test_the_grid_of_every_preset_is_its_own(key: str) -> None:
    preset = presets()[key]
    for grid in (GridConfig(), GridConfig(mpp="auto", tile_px="auto"), GridConfig(mpp=preset.mpp[0])):
        found = grids_of(ExtractConfig(encoder=EncoderConfig(name=key), grid=grid))[""]
        assert (found.mpp, found.tile_px) == (preset.mpp[0], preset.tile_px)
        assert other_grid(grid, key) == ""
    for mpp in preset.mpp:  # each that it was trained at, written as people convert magnifications
        assert other_grid(GridConfig(mpp=mpp * 1.002, tile_px=preset.tile_px), key) == ""


@pytest.mark.parametrize("key", sorted(presets()))
@pytest.mark.parametrize("what", ["mpp", "tile_px", "magnification"])
def test_another_grid_is_named_or_refused_for_every_preset(key: str, what: str) -> None:
    preset = presets()[key]
    other = {"mpp": 0.7, "tile_px": preset.tile_px + 32, "magnification": 14}[what]
    if preset.fixed_grid:
        with pytest.raises(
            InputError, match=r"trained on .* px at .*leave --mpp and --tile-px out, or pass --allow"
        ):
            configured(key, **{what: other})
    config = configured(key, **{what: other, "allow_other_grid": True})
    text = other_grid(config.grid, key)
    assert f"{preset.title} was trained on {preset.tile_px} px at {preset.mpp[0]:g}" in text
    assert f"{preset.tile_px + 32} px" in text if what == "tile_px" else "at 0.7" in text
    if not preset.fixed_grid:
        assert other_grid(configured(key, **{what: other}).grid, key) == text


def test_only_encoders_whose_card_says_so_refuse() -> None:
    assert tuple(key for key, preset in presets().items() if preset.fixed_grid) == FIXED
    for further in (1.0,), (0.5, 2.0):
        with pytest.raises(InputError, match="--allow-other-grid"):
            configured("hoptimus0", further)


@pytest.mark.parametrize("name", ["descriptor", "timm:resnet18", "torchvision:resnet50", "onnx:uni_v1.onnx"])
def test_an_encoder_without_a_grid_of_its_own_keeps_half_a_micron_and_256(name: str) -> None:
    found = encoder_grid(GridConfig(min_tissue=0.5), name)
    assert found == GridConfig(mpp=0.5, tile_px=256, min_tissue=0.5)
    assert other_grid(GridConfig(mpp=3, tile_px=99), name) == ""


def test_an_overlap_is_held_against_the_tile_of_the_encoder() -> None:
    with pytest.raises(
        InputError, match=r"overlap_px.*the overlap \(230\) must be smaller than Virchow2's tiles \(224 px\)"
    ):
        configured("virchow2", overlap_px=230)
    assert configured("gigapath", overlap_px=230).grid.overlap_px == 230
    with pytest.raises(InputError, match=r"must be smaller than the tile \(256\)"):
        configured("descriptor", overlap_px=300)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An extraction with a preset of one narrow block, whose own tile is 64 px."""
    preset = presets()["uni_v1"]
    arguments = {**preset.architecture.arguments, "depth": 1, "embed_dim": 32, "num_heads": 2}
    narrow = dataclasses.replace(preset.architecture, arguments=arguments)
    monkeypatch.setitem(
        presets(), "uni_v1", dataclasses.replace(preset, architecture=narrow, embed_dim=32, tile_px=64)
    )
    network = build_architecture(narrow, meta=False)
    for tensor in network.parameters():
        nn.init.constant_(tensor, 0.01)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    write_slide(tmp_path / "slides" / "a.tif", 0)

    def run(**grid: object) -> tuple[str, dict]:
        config = ExtractConfig(
            slides=tmp_path / "slides", out=tmp_path / "out", grid=GridConfig(**grid),
            encoder=EncoderConfig(name="uni_v1", weights=tmp_path / "w.safetensors", device="cpu"),
            extraction=ExecutionConfig(workers=1),
        )  # fmt: skip
        (row,) = read_ledger(extract(config).files["ledger"])
        assert row.status != "failed", row.reason
        return row.reason, json.loads((tmp_path / "out" / "run.json").read_text())

    return run


def test_a_job_takes_the_encoders_grid_and_resumes_with_its_numbers(job, tmp_path: Path) -> None:
    reason, record = job()
    assert reason == ""
    assert (record["config"]["grid"]["mpp"], record["config"]["grid"]["tile_px"]) == (0.5, 64)
    assert record["warnings"] == []
    identity = open_features_file(tmp_path / "out/features/uni_v1/a.h5").identity
    assert (identity.mpp_target, identity.tile_px) == (0.5, 64)
    assert job(mpp=0.5, tile_px=64)[0] == "already extracted"


def test_another_grid_is_in_log_ledger_and_run_record(job, caplog: pytest.LogCaptureFixture) -> None:
    told = "tiles have 96 px at 0.5 µm per pixel, and UNI was trained on 64 px at 0.5"
    with caplog.at_level(logging.WARNING, "wsi_ncmi"):
        reason, record = job(tile_px=96)
    assert reason == told
    assert record["warnings"] == [told]
    assert [each.getMessage() for each in caplog.records if "trained" in each.getMessage()] == [
        f"extract: {told}."
    ]
    assert job(tile_px=96)[0] == f"already extracted; {told}"
    # Features of before, when every encoder had the same default, are gone on with as they are.
    with pytest.raises(IdentityConflictError, match=r"96 there, 64 here \(--mpp 0\.5 --tile-px 96 goes on"):
        job()
