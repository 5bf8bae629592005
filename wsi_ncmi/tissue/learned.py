"""Masks from a network of the user's: files found and checked, overlapping windows, classes put together."""

import hashlib
import io
import json
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_ncmi.core.config import config_from
from wsi_ncmi.core.errors import InputError, SlideError, SlideReadError
from wsi_ncmi.core.files import check_regular, parse_json, sha256_file
from wsi_ncmi.slides import Mpp, Overview, Slide
from wsi_ncmi.tissue.config import ARTIFACT_KINDS, MaskModelConfig, TissueConfig
from wsi_ncmi.tissue.high_res_reader import BoxReader

_PAGE = "docs/explanation/tissue.md has examples"
# What lies on itself or is out of focus is tissue all the same; ink and borders hide what is there.
_TISSUE = ("tissue", "fold", "blur")
# Pixels of one forward pass on a GPU: eight inputs of 512 px.
_BATCH_PX = 1 << 21
# A window whose densest place is below this is glass: no stain is as pale.
_GLASS = 0.02
# A slide may be as much coarser than the model's input.
_COARSER = 1.01


def check_mask_model(options: TissueConfig, folder: Path | None = None) -> TissueConfig:
    """Finds the files of a mask model, runs it once, and fills in their hash; other methods stay as they are.

    Args:
        options: The tissue options.
        folder: Folder of weights, where the model is looked for by its name.

    Raises:
        InputError: A file is missing, is no such model, or isn't the one with ``options.model_sha256``.
    """
    if options.model_file is None:
        return options
    path = next(
        (
            each
            for each in (options.model_file, (folder or Path()) / options.model_file.name)
            if each.is_file()
        ),
        None,
    )
    if path is None:
        raise InputError(
            f"There is no mask model {options.model_file}; give its path after 'model:', or put it into the "
            "weights folder (--weights-dir, WSI_NCMI_WEIGHTS)."
        )
    digest = _digest(path, read_mask_config(path))
    if options.model_sha256 not in (None, digest):
        raise InputError(
            f"The mask model {path} or its JSON isn't the one that the features were made with (SHA-256 "
            f"{digest[:12]}…, not {str(options.model_sha256)[:12]}…); give that one."
        )
    found = replace(options, method=f"model:{path}", model_sha256=digest)
    model = load_mask_model(path, digest, "cpu")
    if (model.config.core_px - 1) * model.config.mpp < options.working_mpp:
        raise InputError(
            f"The mask model {path} sees {model.config.tile_px} px of {model.config.mpp:g} µm, too little "
            f"for tissue.working_mpp {options.working_mpp:g}; make that smaller."
        )
    return found


def read_mask_config(path: Path) -> MaskModelConfig:
    """Reads the JSON beside a mask model.

    Args:
        path: The model; the JSON has the same name with the suffix ``.json``.

    Raises:
        InputError: It isn't there or isn't one.
    """
    beside = path.with_suffix(".json")
    try:
        check_regular(beside)
        values = parse_json(beside.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"The mask model {path} has no {beside.name} beside it, which states mpp, tile_px and classes; "
            f"{_PAGE}."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{beside} can't be read ({error}); {_PAGE}.") from error
    if not isinstance(values, Mapping):
        raise InputError(f"{beside} holds no object with mpp, tile_px and classes; {_PAGE}.")
    return config_from(MaskModelConfig, values, str(beside))


def _digest(path: Path, config: MaskModelConfig) -> str:
    """Hash of a model's bytes and of what its JSON says, however it is written."""
    said = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if getattr(config, field.name) != getattr(MaskModelConfig, field.name, None)
    }
    return hashlib.sha256(f"{sha256_file(path)} {json.dumps(said, sort_keys=True)}".encode()).hexdigest()


class MaskModel:
    """A loaded mask model; a process has one, and one slide at a time passes through it.

    Args:
        path: ONNX (``.onnx``, on the CPU) or TorchScript.
        device: ``auto``, ``cpu`` or ``cuda``, for TorchScript.

    Attributes:
        config: Its JSON.
        lock: Held while a slide is worked on.

    Raises:
        InputError: It can't be read or run, or gives other classes than its JSON says.
    """

    def __init__(self, path: Path, device: str) -> None:
        from wsi_ncmi.encoders.backends import choose_device
        from wsi_ncmi.encoders.mask_files import mask_backend

        self.config, self.lock, self._name = read_mask_config(path), threading.Lock(), path.name
        edge = self.config.tile_px
        chosen = choose_device("cpu" if path.suffix.lower() == ".onnx" else device)
        self.batch = max(1, _BATCH_PX // edge**2) if chosen.type == "cuda" else 1
        self._backend = mask_backend(path, chosen, edge, self.config.mean, self.config.std)
        try:
            scores = self._scores(np.full((1, edge, edge, 3), 255, np.uint8))
        except Exception as error:  # what a stranger's network raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise InputError(
                f"The mask model {path} can't run on an image of {edge} px ({reason}); check tile_px in its "
                "JSON."
            ) from error
        shape = scores.shape
        if len(shape) != 4 or shape[:2] != (1, len(self.config.classes)):
            raise InputError(
                f"The mask model {path} gives {' × '.join(map(str, shape))} values for one image, not "
                f"1 × {len(self.config.classes)} classes × height × width; check classes in its JSON."
            )
        if np.isnan(scores).any():
            raise InputError(
                f"The mask model {path} gives NaN for a white image; check mean and std in its JSON."
            )

    def classes_of(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The class with the highest score of each place: uint8 (n, h, w) for uint8 (n, px, px, 3).

        Raises:
            SlideError: A score is NaN.
        """
        scores = self._scores(pixels)
        if np.isnan(scores).any():
            raise SlideError(f"The mask model {self._name} gave scores that are no numbers (NaN); check it.")
        classes: NDArray[np.uint8] = scores.argmax(axis=1).astype(np.uint8)
        return classes

    def _scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        if self.config.jpeg_quality is not None:
            pixels = np.stack([_as_jpeg(tile, self.config.jpeg_quality) for tile in pixels])
        return self._backend.begin(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))))()


def _as_jpeg(tile: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    written = io.BytesIO()
    Image.fromarray(tile).save(written, format="JPEG", quality=quality)
    return np.asarray(Image.open(written))


@lru_cache(maxsize=1)
def load_mask_model(path: Path, sha256: str, device: str) -> MaskModel:
    """Loads a mask model, once in a process.

    Args:
        path: Its file.
        sha256: Hash that it and its JSON must have.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: It can't be used, or was changed.
    """
    model = MaskModel(path, device)
    if _digest(path, model.config) != sha256:
        raise InputError(f"The mask model {path} or its JSON was changed while the job ran; start it again.")
    return model


@dataclass(frozen=True, eq=False)  # arrays have no one truth value to compare by
class LearnedMask:
    """Tissue and artefacts as a mask model sees them, on the pixels of the overview.

    Attributes:
        tissue: bool (h, w); folds and what is out of focus are tissue, ink and borders are none.
        told: Kinds of artefacts that the model has a class for.
        bits: uint8 (h, w); bit k is set where kind k covers half of the pixel.
        fold_shares: uint8 (h, w), how much of each pixel is under a fold, in ``steps``.
    """

    tissue: NDArray[np.bool_]
    told: tuple[str, ...]
    bits: NDArray[np.uint8]
    fold_shares: NDArray[np.uint8]


def find_classes(
    slide: Slide,
    mpp: Mpp,
    overview: Overview,
    green: NDArray[np.float16],
    model: MaskModel,
    steps: int,
) -> LearnedMask:
    """Runs a mask model over a slide.

    The overview is parted into cores; the model sees each with its surroundings, at its own resolution
    exactly and white beyond the slide. A pixel of the overview gets the share of each class under it. Where
    no stain is, the model isn't asked: that is background. What can't be read counts as tissue.

    Args:
        slide: The open slide.
        mpp: Its resolution.
        overview: Its overview.
        green: Smoothed density of green, float16 (h, w).
        model: The model.
        steps: Steps in which ``fold_shares`` counts.

    Raises:
        SlideError: The slide is coarser than the model's input, or the model gives NaN.
    """
    config, shape = model.config, green.shape
    if max(mpp.x, mpp.y) > config.mpp * _COARSER:
        raise SlideError(
            f"The slide has {max(mpp.x, mpp.y):g} µm per pixel, coarser than the {config.mpp:g} of the mask "
            "model; take another tissue method for it."
        )
    told = tuple(kind for kind in ARTIFACT_KINDS if kind in config.classes)
    found = LearnedMask(np.zeros(shape, np.bool_), told, np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))
    # Classes that stand for the same are counted together.
    kinds = ("tissue", *told)
    table = np.array([(*kinds, "background").index(name) for name in config.classes], np.uint8)
    with model.lock, _Windows(slide, mpp, overview, config) as windows:
        for batch in windows.batches(green, model.batch, found.tissue):
            classes = table[model.classes_of(np.stack([window.pixels for window in batch]))]
            for window, seen in zip(batch, classes, strict=True):
                shares = {kind: window.share(seen == number) for number, kind in enumerate(kinds)}
                whole = sum(shares[kind] for kind in _TISSUE if kind in shares)
                found.tissue[window.core] = whole >= 0.5
                for kind in told:
                    bit = np.uint8(1 << ARTIFACT_KINDS.index(kind))
                    found.bits[window.core] |= np.where(shares[kind] >= 0.5, bit, np.uint8(0))
                if "fold" in told:
                    found.fold_shares[window.core] = np.rint(shares["fold"] * steps)
    return found


@dataclass(frozen=True, eq=False)
class _Window:
    """What the model sees of a core.

    Attributes:
        pixels: uint8 (px, px, 3).
        core: Rows and columns of the overview.
        edges: Edges of those rows, and of those columns, as shares of the window.
    """

    pixels: NDArray[np.uint8]
    core: tuple[slice, slice]
    edges: tuple[NDArray[np.float64], NDArray[np.float64]]

    def share(self, plane: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Share of each pixel of the core that is set in a plane over the window, float32."""
        down, across = (
            _overlaps(edges * side, side) for edges, side in zip(self.edges, plane.shape, strict=True)
        )
        shares: NDArray[np.float32] = down @ plane.astype(np.float32) @ across.T
        return shares


def _overlaps(edges: NDArray[np.float64], length: int) -> NDArray[np.float32]:
    """Share of each cell between two edges that each pixel takes, float32 (cells, length)."""
    pixel = np.arange(length)
    common = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    shares: NDArray[np.float32] = (np.maximum(common, 0.0) / np.diff(edges)[:, None]).astype(np.float32)
    return shares


class _Windows(BoxReader):
    """The windows of a slide at the resolution of a model."""

    def __init__(self, slide: Slide, mpp: Mpp, overview: Overview, config: MaskModelConfig) -> None:
        self._overview, self._edge = overview, config.tile_px
        self._step = config.mpp / mpp.x, config.mpp / mpp.y  # level-0 pixels of one of the model's
        self._size = slide.width_px, slide.height_px
        level = max(
            number
            for number, view in enumerate(slide.levels)
            if number == 0 or max(view.downsample_x, view.downsample_y) <= min(self._step) * _COARSER
        )
        view = slide.levels[level]
        self._down = view.downsample_x, view.downsample_y
        pixel = min(step / down for step, down in zip(self._step, self._down, strict=True))
        super().__init__(slide, level, pixel)
        core = config.core_px - 1  # a window is moved to whole pixels
        self._core = (
            max(1, int(core * self._step[0] / overview.downsample_x)),
            max(1, int(core * self._step[1] / overview.downsample_y)),
        )

    def batches(
        self, green: NDArray[np.float16], count: int, unread: NDArray[np.bool_]
    ) -> Iterator[list[_Window]]:
        """Windows that aren't glass, so many at a time; what can't be read is set in ``unread``."""
        height, width = green.shape
        batch: list[_Window] = []
        for top in range(0, height, self._core[1]):
            for left in range(0, width, self._core[0]):
                rows = slice(top, min(top + self._core[1], height))
                core = rows, slice(left, min(left + self._core[0], width))
                if float(green[core].max()) < _GLASS:
                    continue
                try:
                    batch.append(self._window(core))
                except SlideReadError:
                    unread[core] = True
                if len(batch) == count:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _window(self, core: tuple[slice, slice]) -> _Window:
        over = self._overview.downsample_x, self._overview.downsample_y
        starts, inside, ends, edges = [], [], [], []
        for axis, part in enumerate(core[::-1]):
            step, most = self._step[axis], self._size[axis]
            middle = (part.start + part.stop) / 2 * over[axis]
            # On whole pixels of the model from the slide's corner: nothing is resampled that needn't be.
            start = round(middle / step - self._edge / 2) * step
            # Of the window's pixels those that lie on the slide as a whole.
            first = max(0, round(-start / step))
            last = max(first + 1, min(self._edge, math.floor((most - start) / step + 1e-6)))
            starts.append((start + first * step) / self._down[axis])
            ends.append(min(float(most), start + last * step) / self._down[axis])
            inside.append((first, last))
            edges.append((np.arange(part.start, part.stop + 1) * over[axis] - start) / (self._edge * step))
        pixels = np.full((self._edge, self._edge, 3), 255, np.uint8)
        (left, right), (top, bottom) = inside
        box = (starts[0], starts[1], ends[0], ends[1])
        pixels[top:bottom, left:right] = self.read_box(box, (right - left, bottom - top))
        return _Window(pixels, core, (edges[1], edges[0]))
