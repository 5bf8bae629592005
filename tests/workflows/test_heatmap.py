"""The heatmap job and the viewing job on small slides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import shapely
from PIL import Image

from tests.prediction.models import write_run
from tests.workflows.conftest import WIDTH, tissue
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import OUTPUT_MARKER
from wsi_ncmi.extraction.config import ExecutionConfig, ExtractConfig
from wsi_ncmi.features import open_features_file
from wsi_ncmi.prediction import load_model
from wsi_ncmi.prediction.config import HeatmapConfig, ViewConfig
from wsi_ncmi.synthesis import write_pyramid
from wsi_ncmi.tiling import GridConfig
from wsi_ncmi.workflows import extract
from wsi_ncmi.workflows.convert import ConvertConfig, convert
from wsi_ncmi.workflows.heatmap import make_heatmaps
from wsi_ncmi.workflows.view import open_view


@pytest.fixture(scope="module")
def extracted(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("extracted")
    extract(
        ExtractConfig(
            slides=small_slides,
            out=out,
            grid=GridConfig(mpp=0.5, tile_px=64),
            extraction=ExecutionConfig(workers=1),
        )
    )
    return out


@pytest.fixture
def config(extracted: Path, small_slides: Path, small_bundle: Path, tmp_path: Path) -> HeatmapConfig:
    return HeatmapConfig(
        features=extracted / "features" / "descriptor",
        model=small_bundle,
        out=tmp_path / "maps",
        slides=small_slides,
        only=("s0",),
        top=4,
    )


def test_everything_of_a_slide_is_drawn(config: HeatmapConfig, extracted: Path) -> None:
    result = make_heatmaps(config)
    assert result.exit_code == 0
    file = open_features_file(extracted / "features" / "descriptor" / "s0.h5")
    bundle = load_model(config.model)
    predicted = bundle.classes[int(bundle.predict(file.features).probabilities.argmax())]
    names = {path.name for path in config.out.iterdir()} - {OUTPUT_MARKER}
    expected = {"heatmaps.json", "s0.geojson", "s0_top_attention.jpg"}
    for layer in ("attention", f"evidence_{predicted}"):
        for scale in ("percentile", "absolute"):
            expected |= {f"s0_{layer}_{scale}.png", f"s0_{layer}_{scale}.overlay.tif"}
    assert names == expected
    shapes = shapely.get_parts(shapely.from_geojson((config.out / "s0.geojson").read_text()))
    np.testing.assert_array_equal(shapely.bounds(shapes)[:, :2], file.coords)
    np.testing.assert_array_equal(shapely.bounds(shapes)[:, 2:] - shapely.bounds(shapes)[:, :2], 64)
    told = [
        f["properties"]["measurements"]
        for f in json.loads((config.out / "s0.geojson").read_text())["features"]
    ]
    np.testing.assert_allclose(
        [m["attention"] for m in told], bundle.predict(file.features).attention, rtol=1e-6
    )
    np.testing.assert_allclose(
        [m["evidence tumour"] for m in told],
        bundle.ensemble.tile_probabilities(file.features)[:, 1],
        rtol=1e-5,
    )


def test_without_slides_it_is_drawn_on_white(config: HeatmapConfig) -> None:
    result = make_heatmaps(
        replace(config, slides=None, scale="percentile", overlay=False, geojson=False, classes=("all",))
    )
    assert any("white" in note for note in result.notes)
    names = sorted(path.name for path in config.out.iterdir() if path.name != OUTPUT_MARKER)
    assert names == [
        "heatmaps.json",
        "s0_attention_percentile.png",
        "s0_evidence_negative_percentile.png",
        "s0_evidence_tumour_percentile.png",
    ]
    assert np.asarray(Image.open(config.out / "s0_attention_percentile.png"))[2, 2].tolist() == [
        255,
        255,
        255,
    ]


def test_two_models_side_by_side(config: HeatmapConfig, tmp_path: Path) -> None:
    other = write_run(tmp_path / "ce", folds=1, width=WIDTH, classes=("negative", "tumour"), tile_px=64)
    make_heatmaps(replace(config, compare=other, overlay=False, geojson=False))
    content = json.loads((config.out / "s0.compare.json").read_text())
    assert content["models"] == ["ncmi", "ce"]
    assert set(content["rank_correlation"]) >= {"attention"}
    assert len(list(config.out.glob("*.compare.png"))) == 4
    strange = write_run(tmp_path / "x", folds=1, width=WIDTH, classes=("p", "q"), tile_px=64)
    with pytest.raises(InputError, match="no class in common"):
        make_heatmaps(replace(config, compare=strange))


def test_a_slide_without_tiles_and_another_slide_are_failures(config: HeatmapConfig, tmp_path: Path) -> None:
    result = make_heatmaps(replace(config, only=("empty", "s0")))
    assert result.exit_code == 1
    assert result.failures == ("empty: it has no tiles, so there is nothing to draw.",)
    (tmp_path / "slides").mkdir()
    write_pyramid(tmp_path / "slides" / "s0.svs", tissue(0, 704, 512), 0.5)
    result = make_heatmaps(
        replace(config, slides=tmp_path / "slides", out=tmp_path / "other", only=("s0", "s1"))
    )
    assert "704 × 512 px, its features are of one of 640 × 512" in result.failures[0]
    assert "not below" in result.notes[-1]
    assert "drawn on white: s1" in result.notes[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"only": ("nobody",)}, "'nobody'"),
        ({"classes": ("stroma",)}, "no class 'stroma'"),
        ({"model": Path("nowhere")}, "nowhere"),
        ({"features": Path("nowhere")}, "nowhere"),
    ],
)
def test_wrong_input_is_told(config: HeatmapConfig, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_heatmaps(replace(config, **changes))
    assert not config.out.exists()


def test_slides_of_other_names_and_another_grid_are_refused(config: HeatmapConfig, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    write_pyramid(tmp_path / "slides" / "z.svs", tissue(0), 0.5)
    with pytest.raises(InputError, match="No slide below"):
        make_heatmaps(replace(config, slides=tmp_path / "slides"))
    coarse = write_run(
        tmp_path / "coarse", folds=1, width=WIDTH, classes=("negative", "tumour"), tile_px=64, mpp_target=1.0
    )
    with pytest.raises(InputError, match="mpp_target"):
        make_heatmaps(replace(config, model=coarse))


def test_features_of_trident_are_drawn_alike_and_those_of_another_encoder_refused(
    config: HeatmapConfig, extracted: Path, tmp_path: Path
) -> None:
    convert(
        ConvertConfig(features=extracted / "features" / "descriptor", to="trident", out=tmp_path / "trident")
    )
    make_heatmaps(config)
    make_heatmaps(replace(config, features=tmp_path / "trident", out=tmp_path / "theirs"))
    for name in ("s0.geojson", "s0_attention_percentile.png"):
        assert (tmp_path / "theirs" / name).read_bytes() == (config.out / name).read_bytes()
    other = write_run(
        tmp_path / "o", folds=1, width=WIDTH, classes=("negative", "tumour"), tile_px=64, encoder="uni_v1"
    )
    result = make_heatmaps(replace(config, features=tmp_path / "trident", model=other, out=tmp_path / "x"))
    assert result.failures == ("s0: its features have encoder 'descriptor', the model o takes 'uni_v1'.",)


@pytest.fixture
def view(extracted: Path, small_slides: Path, small_bundle: Path, tmp_path: Path) -> ViewConfig:
    area = {"type": "Feature", "properties": {"classification": {"name": "tumor"}},
            "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]]}}  # fmt: skip
    (tmp_path / "s0.geojson").write_text(json.dumps(area))
    return ViewConfig(
        slide=small_slides / "s0.svs", features=extracted, model=small_bundle, annotations=tmp_path
    )


def told(config: ViewConfig, name: str) -> object:
    with open_view(config) as server:
        server.start()
        with urlopen(server.url + name, timeout=10) as answer:
            return json.load(answer)


def test_the_viewer_shows_the_prediction(view: ViewConfig, tmp_path: Path) -> None:
    shown = told(view, "info.json")["prediction"]
    bundle = load_model(view.model)
    file = open_features_file(view.features / "features" / "descriptor" / "s0.h5")
    p = bundle.predict(file.features).probabilities
    best = bundle.classes[int(p.argmax())]
    assert shown["most probable"].startswith(f"{best}, ")
    assert shown["decision"] == ("abstain" if p.max() < bundle.calibration.abstain_below else best)
    assert ("why no decision" in shown) == (shown["decision"] == "abstain")
    assert {"p(negative)", "p(tumour)", "members agreeing"} < set(shown)
    assert "no statistics" in shown["flags"]
    assert told(replace(view, model=None), "info.json")["prediction"] == {}


def test_the_viewer_shows_model_tissue_and_annotations(view: ViewConfig) -> None:
    info = told(view, "info.json")
    assert info["slide_id"] == "s0"
    assert [layer["name"] for layer in info["layers"]] == [
        "attention",
        "evidence negative",
        "evidence tumour",
    ]
    assert info["shapes"][0]["name"] == "tissue"
    assert "annotation tumor" in [shape["name"] for shape in info["shapes"]]
    assert info["mpp"] == [0.5, 0.5]


def test_the_viewer_shows_measures_without_a_model(view: ViewConfig, extracted: Path) -> None:
    info = told(
        replace(view, model=None, features=extracted / "features" / "descriptor" / "s0.h5"), "info.json"
    )
    assert [layer["name"] for layer in info["layers"]] == ["tissue fraction", "pen", "fold", "border", "blur"]
    bare = told(ViewConfig(slide=view.slide), "info.json")
    assert bare["layers"] == []
    assert bare["shapes"][0]["name"] == "tissue"


def test_a_slide_without_resolution_is_shown_without_outlines(tmp_path: Path) -> None:
    Image.fromarray(tissue(0)).save(tmp_path / "flat.png")
    info = told(ViewConfig(slide=tmp_path / "flat.png"), "info.json")
    assert info["mpp"] is None
    assert "resolution" in info["notes"][0]
    assert told(ViewConfig(slide=tmp_path / "flat.png", default_mpp=0.5), "info.json")["mpp"] == [0.5, 0.5]


@pytest.fixture
def wrong_views(view: ViewConfig, tmp_path: Path) -> dict[str, ViewConfig]:
    (tmp_path / "text.svs").write_text("no slide")
    (tmp_path / "elsewhere").mkdir()
    write_pyramid(tmp_path / "elsewhere" / "s0.svs", tissue(0, 704, 512), 0.5)
    return {
        "is a folder without predictions.json": replace(view, slide=tmp_path),
        "go with an output folder of predict": replace(view, slides=tmp_path),
        "can't be opened as a slide": replace(view, slide=tmp_path / "text.svs"),
        "needs the slide's features": replace(view, features=None),
        "no features of s1": replace(view, slide=view.slide.parent / "s1.svs", features=tmp_path / "one"),
        "704 × 512": replace(view, slide=tmp_path / "elsewhere" / "s0.svs"),
        "no annotations of s0": replace(view, annotations=tmp_path / "elsewhere"),
    }


@pytest.mark.parametrize(
    "words",
    [
        "is a folder without predictions.json",
        "go with an output folder of predict",
        "can't be opened as a slide",
        "needs the slide's features",
        "no features of s1",
        "704 × 512",
        "no annotations of s0",
    ],
)
def test_what_can_not_be_shown_is_told(
    words: str, wrong_views: dict[str, ViewConfig], extracted: Path, tmp_path: Path
) -> None:
    import shutil

    (tmp_path / "one").mkdir()
    shutil.copy(extracted / "features" / "descriptor" / "s0.h5", tmp_path / "one")
    with pytest.raises(InputError, match=words), open_view(wrong_views[words]):
        pass
