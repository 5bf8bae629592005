"""Builds the encoders of lazyslide-models from their snapshots, without a network.

For tiles, ``load_encoder("lazyslide:KEY")`` gives an ordinary encoder. For slides::

    model = find_zoo_model(key, slide=True)  # refusals: unknown, of tiles, refused, packages missing
    listing = find_snapshot(model, weights_dir)  # wsi-ncmi encoders fetch lazyslide:KEY put it there
    zoo = open_zoo(model, listing)  # the package's object, in evaluation mode, on the CPU
    zoo.module  # the torch module: move it to a device
    zoo.object.encode_slide(features, coords)  # the package's own call
    zoo.sha256, zoo.snapshot.licence  # identity of its tensors (or its program), licence

``zoo.object.vision_encoder`` names the tile encoder it wants by the package's key;
``zoo_models()[key].preset`` is our name of that one.
"""

import contextlib
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError, first_line
from wsi_ncmi.core.extras import require
from wsi_ncmi.encoders.base import Encoder
from wsi_ncmi.encoders.config import EncoderConfig
from wsi_ncmi.encoders.encoder_files import find_snapshot
from wsi_ncmi.encoders.network import Headless, NetworkEncoder, Preprocessing
from wsi_ncmi.encoders.preset_models import TileNetwork
from wsi_ncmi.encoders.weights import state_sha256
from wsi_ncmi.encoders.weights_folder import check_listed_file, find_entry
from wsi_ncmi.encoders.zoo import Snapshot, ZooModel, find_zoo_model, read_listing

_LOG = logging.getLogger(__name__)
_BUILDING = threading.Lock()
_PIL_FILTERS = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Zoo:
    """An encoder of the package, built.

    Attributes:
        object: The package's own object.
        module: The torch module that holds its tensors.
        snapshot: What it was built from.
        note: Package version, key, and the hashes of code it runs: part of an identity.
    """

    object: Any
    module: nn.Module
    snapshot: Snapshot
    note: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the tensors in use."""
        return state_sha256(self.module)


def load_zoo(key: str, config: EncoderConfig) -> Encoder:
    """Builds the encoder ``lazyslide:KEY``; see :func:`wsi_ncmi.encoders.load_encoder`."""
    model = find_zoo_model(key, slide=False)
    zoo = open_zoo(model, find_snapshot(model, config.weights))
    preprocessing, crop_px = _preprocessing(zoo)
    network = TileNetwork(ZooNetwork(zoo), crop_px, "class")
    snapshot = zoo.snapshot
    source = f"hub:{snapshot.repository}@{snapshot.revision}"
    encoder = NetworkEncoder(Headless(network, (), preprocessing), source, config)
    encoder.info = replace(encoder.info, licence=snapshot.licence)
    return encoder


class ZooNetwork(nn.Module):
    """``encode_image`` of a tile encoder of the package as a module."""

    def __init__(self, zoo: Zoo) -> None:
        super().__init__()
        self.network = zoo.module
        self._encode = zoo.object.encode_image

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps normalised pixels (n, 3, px, px) to (n, embed_dim)."""
        return cast("Tensor", self._encode(pixels))


def open_zoo(model: ZooModel, listing: Path) -> Zoo:
    """Builds an encoder of the package from its snapshot alone.

    While it is built, the hub's libraries see this snapshot and no network, torch reads tensors only, and
    nothing but files of the snapshot is imported.

    Args:
        model: The encoder.
        listing: Its listing, from :func:`~wsi_ncmi.encoders.encoder_files.find_snapshot`.

    Raises:
        InputError: The extra isn't installed, the snapshot was changed, or the package can't build from it.
    """
    snapshot = read_listing(listing)
    if find_entry(listing.parent, model.name) is None:
        raise InputError(f"The listing {listing} is in no manifest; fetch {model.name} again.")
    check_listed_file(listing)
    return build_zoo(model, snapshot, listing.with_suffix(""))


def build_zoo(model: ZooModel, snapshot: Snapshot, folder: Path) -> Zoo:
    """:func:`open_zoo` of files that were proven."""
    require(("zoo",), model.name)
    if model.code:
        _LOG.warning(
            "Encoder %s runs the code of %s at %s.", model.name, snapshot.repository, snapshot.revision
        )
    import lazyslide_models

    try:
        with _sealed(folder, snapshot, programs=model.code), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package's advice to its own users
            made: Any = lazyslide_models.MODEL_REGISTRY[model.key]()
    except Exception as error:
        raise InputError(
            f"lazyslide-models can't build {model.name} from its snapshot ({type(error).__name__}: "
            f"{first_line(error)}); fetch it again, or use another encoder."
        ) from error
    module = made.model if model.slide else getattr(made, "conch", made.model)
    note = f"lazyslide-models {metadata.version('lazyslide-models')} {model.key}"
    note += "".join(f"; {name} sha256 {snapshot.files[name]}" for name in snapshot.code)
    return Zoo(made, module, snapshot, note)


@cache
def _code_folder() -> tempfile.TemporaryDirectory[str]:
    """Where transformers copies the Python files it imports: this process's own, gone with it."""
    return tempfile.TemporaryDirectory(prefix="wsi-ncmi-zoo-")


@contextlib.contextmanager
def _sealed(folder: Path, snapshot: Snapshot, *, programs: bool) -> Iterator[None]:
    """Lets the hub's libraries see one snapshot as their whole cache, and no network."""
    from huggingface_hub import constants
    from transformers import dynamic_module_utils
    from transformers.utils import logging as transformers_logging

    log: Any = transformers_logging
    log.set_verbosity_error()  # it would call the snapshot's files newly downloaded
    log.disable_progress_bar()
    with _BUILDING, tempfile.TemporaryDirectory() as view:
        place = Path(view) / f"models--{snapshot.repository.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text(snapshot.revision)
        (place / "snapshots").mkdir()
        (place / "snapshots" / snapshot.revision).symlink_to(folder.resolve(), target_is_directory=True)
        values = (
            (constants, "HF_HUB_OFFLINE", True),
            (constants, "HF_HUB_CACHE", view),
            (dynamic_module_utils, "HF_MODULES_CACHE", _code_folder().name),
        )
        before = [(module, name, getattr(module, name)) for module, name, _ in values]
        only = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
        try:
            for module, name, value in values:
                setattr(module, name, value)
            if not programs:
                os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)
            os.environ.pop("TORCH_FORCE_WEIGHTS_ONLY_LOAD", None)
            if only is not None:
                os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = only


def _preprocessing(zoo: Zoo) -> tuple[Preprocessing, int]:
    """What the package does to a tile, and the edge that it crops to.

    Raises:
        InputError: It can't be read as a resize, a crop and a normalisation.
    """
    transform = zoo.object.get_transform()
    try:
        if transform is not None:
            return _of_transform(transform.transforms, zoo.note)
        name = "img_processor" if hasattr(zoo.object, "img_processor") else "processor"
        processor = getattr(zoo.object, name)
        found = _of_processor(getattr(processor, "image_processor", processor), zoo.note)
        # Pixels are prepared by our own resize and scale: the package's own step gives them on.
        setattr(zoo.object, name, lambda images, **_: {"pixel_values": images})
        return found
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"The preprocessing of {zoo.snapshot.encoder} can't be read ({error}); use another encoder."
        ) from error


def _of_transform(steps: Any, note: str) -> tuple[Preprocessing, int]:
    """Of torchvision's steps: image, resize, crop, scale to 0 … 1, normalise."""
    by_name = {type(step).__name__: step for step in steps}
    known = {"ToImage", "Resize", "CenterCrop", "ToDtype", "Normalize"}
    if len(by_name) != len(steps) or not by_name.keys() <= known or not by_name["ToDtype"].scale:
        raise ValueError(f"its steps are {', '.join(type(step).__name__ for step in steps)}")
    resize, normalise = by_name["Resize"], by_name["Normalize"]
    resize_px = _edge(resize.size)
    crop_px = _edge(by_name["CenterCrop"].size) if "CenterCrop" in by_name else resize_px
    mode = getattr(resize.interpolation, "value", resize.interpolation)
    return _checked(resize_px, crop_px, mode, normalise.mean, normalise.std, note)


def _of_processor(processor: Any, note: str) -> tuple[Preprocessing, int]:
    """Of transformers' image processor: the same steps."""
    if not (processor.do_resize and processor.do_normalize and processor.do_rescale):
        raise ValueError("its processor leaves out the resize, the scale or the normalisation")
    size = processor.size
    resize_px = _edge([size[side] for side in ("height", "width", "shortest_edge") if size.get(side)])
    crop = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    crop_px = _edge([crop[side] for side in ("height", "width") if crop.get(side)]) if crop else resize_px
    mode = _PIL_FILTERS[int(processor.resample)]
    return _checked(resize_px, crop_px, mode, processor.image_mean, processor.image_std, note)


def _edge(size: Any) -> int:
    edges = {int(each) for each in (size if isinstance(size, list | tuple) else [size])}
    if len(edges) != 1:
        raise ValueError(f"its tiles aren't square: {size}")
    return edges.pop()


def _checked(
    resize_px: int, crop_px: int, mode: str, mean: Any, std: Any, note: str
) -> tuple[Preprocessing, int]:
    if mode not in _PIL_FILTERS.values() or crop_px > resize_px or (resize_px - crop_px) % 2:
        raise ValueError(f"it resizes to {resize_px} px by {mode} and crops to {crop_px} px")
    crop = f"centre crop {crop_px}; " if crop_px != resize_px else ""
    means, deviations = (tuple(float(value) for value in values) for values in (mean, std))
    return (
        Preprocessing(
            resize_px, mode, cast("tuple[float, float, float]", means),
            cast("tuple[float, float, float]", deviations), f"{crop}{note}",
        ),
        crop_px,
    )  # fmt: skip
