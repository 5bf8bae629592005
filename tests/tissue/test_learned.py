"""Masks from a user's network: files, windows and classes, against slow references."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError, SlideError
from wsi_ncmi.slides import Mpp, open_slide
from wsi_ncmi.synthesis import SlidePlan, make_slide
from wsi_ncmi.tissue import ArtifactConfig, TissueConfig, analyse_tissue, read_geojson, segment_tissue
from wsi_ncmi.tissue.learned import check_mask_model
from wsi_ncmi.tissue.mask import raster

DRAWN = Path(__file__).parent / "drawn_mask.onnx"  # made by research/mask_model.py, of drawn slides alone
# Told by its colour: a place is tissue where it is redder than green, ink where bluer than red, else glass.
COLOUR = ((0.0, 0.0, 0.0, 0.1), (1.0, -1.0, 0.0, 0.0), (-1.0, 0.0, 1.0, 0.0))
SAID = {
    "mpp": 2.0,
    "tile_px": 32,
    "classes": ["background", "tissue", "pen"],
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
}
RAW = TissueConfig(working_mpp=8.0, min_object_um2=0.0, min_hole_um2=0.0)


class ByColour(nn.Module):
    """Scores of classes linear in R, G and B; a dict, as torchvision's models give it."""

    def __init__(self, named: bool = False) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            weight = torch.tensor(COLOUR)
            self.mix.weight.copy_(weight[:, :3, None, None])
            self.mix.bias.copy_(weight[:, 3])
        self.named = named

    def forward(self, pixels: Tensor) -> Any:
        scores = self.mix(pixels)
        return {"out": scores} if self.named else scores


def saved(folder: Path, network: nn.Module | None = None, name: str = "m.pt", **said: Any) -> Path:
    """A TorchScript model with its JSON."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.zeros(1, 3, 32, 32)
        torch.jit.trace(network or ByColour(), example, strict=False).save(folder / name)
    (folder / name).with_suffix(".json").write_text(json.dumps({**SAID, **said}))
    return folder / name


def by(path: Path, **changes: Any) -> TissueConfig:
    return TissueConfig(method=f"model:{path}", **{"min_object_um2": 0.0, "min_hole_um2": 0.0, **changes})


def coloured(folder: Path, height: int = 301, width: int = 450) -> np.ndarray:
    """Blotches of glass, pink and blue, as a picture of 2 µm per pixel."""
    rng = np.random.default_rng(3)
    kinds = (
        rng.integers(0, 3, (height // 10 + 1, width // 10 + 1)).repeat(10, 0).repeat(10, 1)[:height, :width]
    )
    kinds[rng.random(kinds.shape) < 0.1] = 1
    kinds[:100, :160] = 0  # windows of nothing but glass
    picture = np.array([(240, 240, 240), (220, 120, 170), (60, 90, 200)], np.uint8)[kinds]
    Image.fromarray(picture).save(folder / "s.png")
    return kinds


@pytest.mark.parametrize(("overlap", "named"), [(0, False), (9, True)])
def test_windows_are_put_together_without_a_seam(tmp_path: Path, overlap: int, named: bool) -> None:
    """A network that sees one pixel: its classes on the whole picture, counted under each pixel of the mask."""
    kinds = coloured(tmp_path)
    model = saved(tmp_path, ByColour(named), overlap_px=overlap)
    with open_slide(tmp_path / "s.png") as slide:
        found = analyse_tissue(slide, Mpp(2.0, 2.0, "given"), by(model), ArtifactConfig())
    height, width = found.mask.mask.shape
    assert (height, width) == (76, 113)
    # Exact areas: every pixel of 2 µm as 76 × 113 smaller ones, of which a pixel of the mask has 301 × 450.
    shares = np.stack([
        (kinds == kind).repeat(height, 0).reshape(height, 301, 450).mean(1).repeat(width, 1).reshape(height, width, 450).mean(2)
        for kind in (1, 2)
    ])  # fmt: skip
    sure = np.abs(shares - 0.5).min(axis=0) > 1e-3
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(found.mask.mask[sure], shares[0][sure] >= 0.5)
    np.testing.assert_array_equal(found.artifacts.where("pen")[sure], shares[1][sure] >= 0.5)
    assert found.mask.method == "model:m.pt"
    assert found.mask.parameters["method"] == "model:m.pt"


def test_the_overlap_hides_the_borders_of_windows(tmp_path: Path) -> None:
    """Within half of the overlap of its reach, a network gives what it gives on the whole picture."""
    from wsi_ncmi.encoders.model_files import OnnxModule

    kinds = coloured(tmp_path, 304, 456)
    shutil.copy(DRAWN, tmp_path / "d.onnx")  # it sees eleven pixels around
    said = json.loads(DRAWN.with_suffix(".json").read_text())
    (tmp_path / "d.json").write_text(json.dumps({**said, "overlap_px": 24}))
    with open_slide(tmp_path / "s.png") as slide:
        options = by(tmp_path / "d.onnx")
        found = analyse_tissue(slide, Mpp(8.0, 8.0, "given"), options, ArtifactConfig())
    pixels = torch.from_numpy(np.array(Image.open(tmp_path / "s.png"))).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(said[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    whole = OnnxModule(DRAWN)((pixels - mean) / std)[0].argmax(0).numpy()
    inner = np.s_[12:-12, 12:-12]
    assert kinds[inner].any()
    asked = found.mask.mask.copy()
    asked[:100, :160] = False
    expected = np.isin(whole, (1, 3))
    expected[:100, :160] = False
    assert (asked[inner] == expected[inner]).mean() > 0.999


def test_a_model_of_drawn_slides_finds_tissue_and_ink(tmp_path: Path) -> None:
    plan = SlidePlan("d", 4, 0, 1, "negative", "pen:red", True, 402)
    make_slide(plan, tmp_path, tmp_path)
    with open_slide(tmp_path / plan.file_name) as slide:
        mpp = json.loads((tmp_path / "d.geojson").read_text())["slide"]["mpp"]
        found = analyse_tissue(
            slide, Mpp(mpp, mpp, "given"), TissueConfig(method=f"model:{DRAWN}"), ArtifactConfig()
        )
    mask = found.mask
    drawn = {
        name: raster(
            [area.polygon for area in read_geojson(tmp_path / "d.geojson") if area.name == name],
            mask.mask.shape, mask.downsample_x, mask.downsample_y,
        )
        for name in ("tissue", "pen")
    }  # fmt: skip
    ink, seen = found.artifacts.where("pen"), drawn["tissue"] & ~drawn["pen"]
    assert (mask.mask & seen).sum() / (mask.mask | seen).sum() > 0.9
    assert (ink & drawn["pen"]).sum() / (ink | drawn["pen"]).sum() > 0.7


def test_folds_and_blur_are_tissue_and_ink_is_none(tmp_path: Path) -> None:
    kinds = coloured(tmp_path)
    with open_slide(tmp_path / "s.png") as slide:
        masks = {
            name: analyse_tissue(
                slide, Mpp(2.0, 2.0, "given"),
                by(saved(tmp_path, name=f"{name}.pt", classes=["background", "tissue", name])), ArtifactConfig(),
            )
            for name in ("tissue", "fold", "blur", "pen", "border", "background")
        }  # fmt: skip
    for name in ("fold", "blur"):
        np.testing.assert_array_equal(masks[name].mask.mask, masks["tissue"].mask.mask)
    for name in ("pen", "border"):
        np.testing.assert_array_equal(masks[name].mask.mask, masks["background"].mask.mask)
    assert masks["blur"].artifacts.kinds[-1] == "blur"
    assert "blur" in masks["blur"].artifacts.polygons()
    everything = np.array([[0.0, 0.0, 450.0, 301.0]])
    told = masks["fold"].artifacts.scores_in(everything)[0, 1]
    blue = (kinds[:300, :448] == 2).mean()
    assert told == pytest.approx(blue, abs=0.01)  # by the share of each pixel
    assert masks["blur"].artifacts.scores_in(everything)[0, 3] == pytest.approx(blue, abs=0.05)
    # What the model has no class for is left to the detectors.
    assert masks["background"].artifacts.where("pen").any()
    assert not masks["border"].artifacts.where("pen").sum() > masks["background"].artifacts.where("pen").sum()


def test_the_hash_is_that_of_the_model_and_of_what_its_json_says(tmp_path: Path) -> None:
    model = saved(tmp_path)
    first = check_mask_model(by(model))
    assert first.model_sha256 is not None
    assert len(first.model_sha256) == 64
    (tmp_path / "m.json").write_text(json.dumps({**SAID, "jpeg_quality": None}, indent=8))
    assert check_mask_model(by(model)) == first  # spelled otherwise
    assert check_mask_model(first) == first
    for change in ({"mpp": 2.5}, {"jpeg_quality": 80}, {"classes": ["tissue", "background", "pen"]}):
        (tmp_path / "m.json").write_text(json.dumps({**SAID, **change}))
        assert check_mask_model(by(model)).model_sha256 != first.model_sha256
        with pytest.raises(InputError, match="isn't the one that the features were made with"):
            check_mask_model(first)
    (tmp_path / "m.json").write_text(json.dumps(SAID))
    moved = tmp_path / "weights"
    moved.mkdir()
    for name in ("m.pt", "m.json"):
        (tmp_path / name).rename(moved / name)
    assert check_mask_model(first, moved).model_sha256 == first.model_sha256
    assert str(tmp_path) not in json.dumps(first.to_json())


def test_other_methods_know_nothing_of_models() -> None:
    assert check_mask_model(TissueConfig()) == TissueConfig()
    assert "model_sha256" not in TissueConfig().to_json()


def _state_dict(folder: Path) -> None:
    torch.save(ByColour().state_dict(), folder / "m.pt")


def _no_json(folder: Path) -> None:
    (folder / "m.json").unlink()


def _said(**values: Any) -> Any:
    def write(folder: Path) -> None:
        (folder / "m.json").write_text(json.dumps({**SAID, **values}))

    return write


def _text(text: str) -> Any:
    return lambda folder: (folder / "m.json").write_text(text)


class _Flat(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean((2, 3))


class _Only32(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.flatten(2) @ torch.ones(1024, 1)).view(-1, 3, 1, 1)


@pytest.mark.parametrize(("fault", "sentence"), [
    (lambda folder: (folder / "m.pt").unlink(), "There is no mask model"),
    (_no_json, "has no m.json beside it, which states mpp, tile_px and classes"),
    (_text("{"), "m.json can't be read"),
    (_text("[1]"), "holds no object"),
    (_text('{"mpp": 1, "tile_px": 32}'), "classes"),
    (_said(classes=["background", "tisue", "pen"]), "tisue"),
    (_said(classes=["background", "pen", "fold"]), "none of its classes is 'tissue'"),
    (_said(tile=3), "tile"),
    (_said(overlap_px=20), "leaves too little"),
    (_said(classes=["background", "tissue"]), "1 × 3 × 32 × 32 values for one image, not 1 × 2 classes"),
    (_said(mpp=0.2), "too little for tissue.working_mpp"),
    (_state_dict, "can't be read as TorchScript"),
    (lambda folder: (folder / "m.pt").write_bytes(b"no model"), "can't be read as TorchScript"),
    (lambda folder: saved(folder, _Flat()), "gives 1 × 3 values for one image"),
    (lambda folder: saved(folder, _Only32(), tile_px=48), "can't run on an image of 48 px"),
    (_said(mean=[float("nan"), 0, 0]), "gives NaN for a white image; check mean and std"),
])  # fmt: skip
def test_wrong_files_are_one_sentence(tmp_path: Path, fault: Any, sentence: str) -> None:
    model = saved(tmp_path)
    fault(tmp_path)
    with pytest.raises(InputError) as error:
        check_mask_model(by(model))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_onnx_files_are_one_sentence(tmp_path: Path) -> None:
    import onnx

    (tmp_path / "m.json").write_text(json.dumps({**SAID, "tile_px": 64, "classes": ["tissue", "pen"] * 2}))
    newer = onnx.load(DRAWN)
    newer.opset_import[0].version = 999
    onnx.save(newer, tmp_path / "m.onnx")
    with pytest.raises(InputError, match="can't be read as ONNX"):
        check_mask_model(by(tmp_path / "m.onnx"))
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="can't be read as ONNX"):
        check_mask_model(by(tmp_path / "m.onnx"))


class _NanOnStain(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 0.9999).sqrt()


def test_scores_that_are_no_numbers_are_the_slides_failure(tmp_path: Path) -> None:
    coloured(tmp_path)
    options = check_mask_model(by(saved(tmp_path, _NanOnStain())))
    with (
        open_slide(tmp_path / "s.png") as slide,
        pytest.raises(SlideError, match=r"m\.pt gave scores that are no numbers"),
    ):
        segment_tissue(slide, Mpp(2.0, 2.0, "given"), options)


def test_a_slide_coarser_than_the_model_is_told(tmp_path: Path) -> None:
    coloured(tmp_path)
    with (
        open_slide(tmp_path / "s.png") as slide,
        pytest.raises(SlideError, match=r"4 µm per pixel, coarser than the 2 "),
    ):
        segment_tissue(slide, Mpp(4.0, 4.0, "given"), by(saved(tmp_path)))


@pytest.mark.parametrize(("values", "sentence"), [
    ({"method": "model"}, "model:FILE"), ({"method": "model:"}, "did you mean 'model:FILE'"),
    ({"method": "ots"}, "did you mean 'otsu'"), ({"model_sha256": "ab"}, "only the method 'model' has it"),
    ({"method": "model:a.onnx", "threshold": 0.2}, "only the method 'threshold' has it"),
])  # fmt: skip
def test_wrong_methods_are_told(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TissueConfig(**values)


def test_jpeg_compression_is_that_of_the_json(tmp_path: Path) -> None:
    from wsi_ncmi.tissue.learned import MaskModel

    pixels = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8)
    plain, pressed = (
        MaskModel(saved(tmp_path, name=f"{quality}.pt", jpeg_quality=quality), "cpu").classes_of(pixels)
        for quality in (None, 10)
    )
    assert (plain != pressed).mean() > 0.1
