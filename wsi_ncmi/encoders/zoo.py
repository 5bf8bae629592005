"""The encoders of lazyslide-models (extra ``zoo``): which are served, and the snapshots that hold them.

A snapshot is one commit of a repository of the Hugging Face hub in the weights folder: the files in
``lazyslide_KEY/``, and beside it ``lazyslide_KEY.json``, which lists every file with its SHA-256 and stands
in the folder's manifest. Nothing here imports torch or the package.
"""

import difflib
import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from wsi_ncmi.core.config import configclass
from wsi_ncmi.core.errors import InputError, first_line
from wsi_ncmi.core.files import parse_json, path_safe, sha256_file

__all__ = [
    "Snapshot", "ZooModel", "changed_file", "find_zoo_model", "listing_name", "read_listing", "zoo_keys",
    "zoo_models",
]  # fmt: skip

_DATA = ("*.json", "*.safetensors", "*.bin", "*.txt", "*.model", "LICENSE*")
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@configclass
class ZooModel:
    """An encoder of lazyslide-models, and how it is served.

    Attributes:
        key: Its key in the package's registry.
        repository: Its repository on the Hugging Face hub.
        files: Patterns of the files that it reads; by default configuration and weights.
        code: It runs Python files, or a program, of its repository.
        packages: Import names of packages that it needs beside the extra ``zoo``.
        slide: It encodes a slide from the features of its tiles; the others encode tiles.
        preset: The preset of the same network.
        refused: Why it isn't served.
    """

    key: str
    repository: str = ""
    files: tuple[str, ...] = _DATA
    code: bool = False
    packages: tuple[str, ...] = ()
    slide: bool = False
    preset: str = ""
    refused: str = ""

    @property
    def name(self) -> str:
        """Its full name here."""
        return f"lazyslide:{self.key}"

    @property
    def patterns(self) -> tuple[str, ...]:
        """What is fetched of its repository; Python files only where it runs them."""
        return (*self.files, "*.py") if self.code else self.files


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository, its files and their hashes.

    Attributes:
        encoder: Full name of the encoder that it was fetched for.
        repository: ``owner/name`` on the hub.
        revision: The commit.
        licence: Of the weights, as lazyslide-models states it.
        files: SHA-256 of every file, by its path in the repository.
    """

    encoder: str
    repository: str
    revision: str
    licence: str
    files: dict[str, Sha256]

    @property
    def code(self) -> tuple[str, ...]:
        """The files of it that are programs."""
        return tuple(name for name in self.files if name.endswith((".py", ".pt2")))


@cache
def zoo_models() -> dict[str, ZooModel]:
    """Every tile and slide encoder of lazyslide-models by its key, those that are refused among them."""
    content = yaml.safe_load((resources.files("wsi_ncmi.encoders") / "zoo.yaml").read_text("utf-8"))
    entries = {key: {"key": key, **facts} for key, facts in content.items()}
    return TypeAdapter(dict[str, ZooModel]).validate_python(entries)


def zoo_keys() -> tuple[str, ...]:
    """Keys of the tile encoders that are served."""
    return tuple(key for key, model in zoo_models().items() if not model.refused and not model.slide)


def find_zoo_model(key: str, *, slide: bool | None = None) -> ZooModel:
    """The entry of a key.

    Args:
        key: Key of lazyslide-models, without ``lazyslide:``.
        slide: True for slide encoders, False for tile encoders alone; None for any.

    Raises:
        InputError: There is none, with the nearest keys; it is refused, with the reason; a package that it
            needs isn't installed.
    """
    model = zoo_models().get(key)
    served = [each.key for each in zoo_models().values() if not each.refused and slide in (None, each.slide)]
    if model is None:
        near = difflib.get_close_matches(key, served, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"those served are {', '.join(served)}."
        raise InputError(f"lazyslide-models has no tile or slide encoder {key!r}; {hint}")
    if slide is not None and model.slide is not slide:
        kind, verb = ("slide", "encode-slides") if model.slide else ("tile", "extract")
        raise InputError(f"{model.name} is a {kind} encoder; use it with wsi-ncmi {verb}.")
    if model.refused:
        instead = (
            f"use the preset {model.preset}, the same network" if model.preset else "use another encoder"
        )
        raise InputError(f"{model.name} isn't served here: {model.refused}; {instead}.")
    if missing := [name for name in model.packages if importlib.util.find_spec(name) is None]:
        raise InputError(f"{model.name} needs {' and '.join(missing)}, which the extra zoo doesn't bring.")
    return model


def read_listing(listing: Path) -> Snapshot:
    """The listing of a snapshot, its files unchecked.

    Raises:
        InputError: It can't be read, or names a file outside the snapshot.
    """
    try:
        snapshot = TypeAdapter(Snapshot).validate_python(parse_json(listing.read_text("utf-8")))
        if any(PurePosixPath(name).is_absolute() or ".." in name.split("/") for name in snapshot.files):
            raise ValueError("a file of it lies outside the snapshot")
    except (OSError, ValueError, ValidationError) as error:
        raise InputError(
            f"The listing {listing} can't be read ({first_line(error)}); fetch the encoder again."
        ) from error
    return snapshot


def changed_file(folder: Path, snapshot: Snapshot) -> str:
    """What is wrong with the files of a snapshot; empty where nothing is."""
    for name, digest in snapshot.files.items():
        if not (folder / name).is_file():
            return f"its file {name} is missing"
        if sha256_file(folder / name) != digest:
            return f"its file {name} was changed or damaged: its SHA-256 is not the one that was fetched"
    return ""


def listing_name(model: ZooModel) -> str:
    """File name of an encoder's listing."""
    return f"{path_safe(model.name)}.json"
