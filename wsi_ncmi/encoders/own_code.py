"""A user's own encoder: from a Python file, or from an installed package that announces it."""

import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import sha256_file
from wsi_ncmi.encoders.base import Encoder, EncoderInfo
from wsi_ncmi.encoders.config import ENTRY_POINTS, EncoderConfig
from wsi_ncmi.encoders.encoder_files import needed_file
from wsi_ncmi.encoders.model_files import encoder_of_module

_LOG = logging.getLogger(__name__)


def load_file(model: str, config: EncoderConfig) -> Encoder:
    """Builds ``file:PATH.py:CALLABLE``: the callable gives a module or an encoder; it may take the config."""
    attribute = model.rpartition(":")[2]
    path = needed_file(config)
    name = f"file:{path.name}:{attribute}"
    _LOG.warning("Encoder %s runs the program in its file; take such files only from people you trust.", name)
    digest = sha256_file(path)
    build = getattr(_module(path, digest), attribute, None)
    if not callable(build):
        raise InputError(f"The file {path} has no callable {attribute!r}; name one that builds the encoder.")
    return _made(build, name, f"code sha256 {digest}", path.name, config)


def load_plugin(model: str, config: EncoderConfig) -> Encoder:
    """Builds ``plugin:NAME``: entry point NAME of the group ``wsi_ncmi.encoders`` of an installed package."""
    points = [point for point in metadata.entry_points(group=ENTRY_POINTS) if point.name == model]
    if len(points) != 1:
        raise InputError(
            f"{len(points)} installed packages announce an encoder {model!r}; it must be one package."
        )
    (point,) = points
    try:
        build = point.load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The package that announces plugin:{model} can't be imported ({error}); install it again."
        ) from error
    version = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
    return _made(build, f"plugin:{model}", f"code of {version}", version, config)


def _module(path: Path, digest: str) -> Any:
    name = f"_wsi_ncmi_encoder_{digest[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickles of the file look it up
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise InputError(
                f"The file {path} can't be run ({type(error).__name__}: {error}); correct it."
            ) from error
    return sys.modules[name]


def _made(build: Callable[..., Any], name: str, note: str, source: str, config: EncoderConfig) -> Encoder:
    try:
        made = build(config) if _takes_config(build) else build()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"The encoder {name} can't be built ({type(error).__name__}: {error}).") from error
    if isinstance(made, nn.Module):
        return encoder_of_module(made, name, note, source, config)
    if not isinstance(made, Encoder):
        raise InputError(
            f"The encoder {name} is a {type(made).__name__}; its callable must give a torch module or a "
            "wsi_ncmi Encoder."
        )
    if not hasattr(made, "info"):
        made.info = _info_of_0_1(made, name)
    made.info = replace(made.info, name=name, transform=f"{made.info.transform}; {note}")
    return made


def _info_of_0_1(made: Any, name: str) -> EncoderInfo:
    """The fields of an encoder written for 0.1, which kept them on the encoder itself."""
    names = [field.name for field in fields(EncoderInfo) if hasattr(made, field.name)]
    try:
        return EncoderInfo(embed_dim=made.width, **{each: getattr(made, each) for each in names})
    except (AttributeError, TypeError) as error:
        raise InputError(
            f"The encoder {name} has no info; set self.info = EncoderInfo(...) where it is built."
        ) from error


def _takes_config(build: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # callables written in C have no signature
        return False
    return any(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters)
