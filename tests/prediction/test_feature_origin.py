"""What made a model's features goes with it, and makes new slides alike."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.extraction.conftest import write_slide
from wsi_ncmi.cohorts import open_bag_source
from wsi_ncmi.cohorts.joined_bags import feature_origin
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.extraction.config import ExecutionConfig, ExtractConfig
from wsi_ncmi.extraction.task import artifacts_rule
from wsi_ncmi.features import open_features_file
from wsi_ncmi.features.stain import StainConfig, stain_target
from wsi_ncmi.prediction.extraction_settings import artifact_config_of, stain_target_of
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.tissue import ArtifactConfig, TissueConfig
from wsi_ncmi.workflows import extract

DROP = ArtifactConfig(rule="drop", blur=0.75)


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_features_made_from_the_origin_are_the_same_files(tmp_path: Path, method: str) -> None:
    from wsi_ncmi.features.stain.target import model_class

    write_slide(tmp_path / "slides" / "a_empty.tif", 1, tissue_px=0)
    write_slide(tmp_path / "slides" / "b.tif", 1)
    target = stain_target(StainConfig(method=method, sample_tiles=9))
    assert target is not None
    if (
        method == "macenko"
    ):  # the flat tissue of these slides has one stain; measuring it is not the point here
        target = replace(target, model=model_class("reinhard").builtin())
        target = replace(target, identity=target.identity.replace("macenko", "reinhard"))
    plain = ExtractConfig(
        slides=tmp_path / "slides", out=tmp_path / "a", encoder=EncoderConfig(), tissue=TissueConfig(),
        grid=GridConfig(tile_px=64), extraction=ExecutionConfig(workers=1), artifacts=DROP,
    )  # fmt: skip
    first = extract(plain, stain=target)
    assert first.exit_code == 0
    origin = feature_origin(open_bag_source(first.files["features"]))
    again = replace(plain, out=tmp_path / "b", artifacts=artifact_config_of(origin, "m"))
    extract(again, stain=stain_target_of(origin, "m"))
    one, other = (tmp_path / name / "features/descriptor/b.h5" for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert open_features_file(one).n_tiles > 20


def test_targets_survive_json() -> None:
    import json

    for method in ("macenko", "reinhard"):
        target = stain_target(StainConfig(method=method))
        assert target is not None
        origin = {"stain": target.identity, "stain_target": target.model.text}
        assert stain_target_of(json.loads(json.dumps(origin)), "m") == target


def test_older_models_say_nothing_and_mean_the_defaults() -> None:
    assert artifact_config_of({}, "m") == ArtifactConfig()
    assert artifact_config_of({"artifacts_rule": "keep"}, "m") == ArtifactConfig()
    assert asdict(artifact_config_of({"artifacts_rule": '{"rule":"drop","pen":0.5}'}, "m"))["pen"] == 0.5
    rule = ArtifactConfig(rule="drop", pen=0.5)
    assert artifact_config_of({"artifacts_rule": artifacts_rule(rule)}, "m") == rule
    old = ArtifactConfig(
        rule="drop", detectors=4
    )  # a model of 0.1 goes on with the detectors it learned from
    assert artifact_config_of({"artifacts_rule": artifacts_rule(old)}, "m") == old
    assert artifact_config_of({"artifacts_rule": '{"rule":"drop","detectors":3}'}, "m").detectors == 5
    assert stain_target_of({}, "m") is None
    assert stain_target_of({"stain": "none"}, "m") is None


@pytest.mark.parametrize(
    "origin",
    [
        {"stain": '{"method":"macenko","sample_tiles":4}'},
        {"stain": '{"sample_tiles":4}', "stain_target": '{"method":"purple"}'},
        {"stain": "{", "stain_target": "{}"},
        {"stain": '{"sample_tiles":4}', "stain_target": '{"method":"macenko"}'},
    ],
)
def test_a_stain_that_cannot_be_read_is_said(origin: dict[str, str]) -> None:
    with pytest.raises(InputError, match="train it again"):
        stain_target_of(origin, "the model m")
    with pytest.raises(InputError, match="train it again"):
        artifact_config_of({"artifacts_rule": "{"}, "the model m")
