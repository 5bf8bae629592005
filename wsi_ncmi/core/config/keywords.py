"""Python arguments as settings: the keys of the YAML file, and the flags of the command line."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeVar, get_type_hints

from wsi_ncmi.core.config.faults import nearest
from wsi_ncmi.core.config.reading import read_config
from wsi_ncmi.core.config.types import find_hint, is_config
from wsi_ncmi.core.errors import InputError

_R = TypeVar("_R")


def from_keywords(cls: type[Any], settings: Mapping[str, Any], what: str, **one_of: str) -> Any:
    """Makes a config object from the arguments of a Python call.

    Args:
        cls: Config class.
        settings: Its keys with their values; a key of a config inside may stand without that one's name where
            it is the only one so called, as flags do (``epochs`` for ``training.epochs``).
        what: What they are settings of, for messages.
        **one_of: Key → list that it stands for where that has a single item.

    Raises:
        InputError: A key or value is wrong.
    """
    own = [*(field.name for field in dataclasses.fields(cls)), *one_of]
    below: dict[str, list[str]] = {}
    for key in _keys(cls):
        below.setdefault(key.rpartition(".")[2], []).append(key)
    values: dict[str, Any] = {}
    for name, value in settings.items():
        keys = [name] if name in own or "." in name else below.get(name, [])
        if not keys:
            raise InputError(f"{what} has no setting {name!r}; {nearest(name, [*own, *below])}")
        if len(keys) > 1:
            several = " or ".join(f"{key.replace('.', '={', 1)!r}" + ": …}" for key in keys)
            raise InputError(f"{what} has several settings {name!r}; write {several}.".replace("'", ""))
        values[keys[0]] = _plain(value)
    for key, many in one_of.items():
        if key in values and many in values:
            raise InputError(f"{what} got {key!r} and {many!r}, which say the same; leave one out.")
        if key in values:
            values[many] = [values.pop(key)]
    ordered = dict(sorted(values.items(), key=lambda item: item[0].count(".")))
    names = {key: key.rpartition(".")[2] for key in ordered}
    return read_config(cls, flags=ordered, flag_names=names)


def takes_settings(
    config: str, *positional: str, **one_of: str
) -> Callable[[Callable[..., _R]], Callable[..., _R]]:
    """Lets a function of a config object be called with the settings themselves too.

    ``extract(ExtractConfig(slides=…))`` and ``extract("slides", "out", encoder="uni_v1")`` are the same.

    Args:
        config: ``module:Class`` of the config class, imported at the first call with settings.
        *positional: Settings that may be given by position, in this order.
        **one_of: As of :func:`from_keywords`.
    """

    def decorate(function: Callable[..., _R]) -> Callable[..., _R]:
        own = list(inspect.signature(function).parameters)[1:]

        @functools.wraps(function)
        def call(*arguments: Any, **settings: Any) -> _R:
            if "config" in settings:
                arguments = (settings.pop("config"), *arguments)
            if arguments and dataclasses.is_dataclass(arguments[0]):
                if extra := [name for name in settings if name not in own]:
                    raise InputError(
                        f"{function.__name__} got a config and {extra[0]!r}; put it into the config."
                    )
                return function(*arguments, **settings)
            if len(arguments) > len(positional):
                raise InputError(
                    f"{function.__name__} takes {_listed(positional)} by position, and all else by name; got "
                    f"{len(arguments)} values."
                )
            given = dict(zip(positional, arguments, strict=False))
            if twice := set(given) & set(settings):
                raise InputError(f"{function.__name__} got {min(twice)!r} twice; give it once.")
            cls = pkgutil.resolve_name(config)
            keys = {field.name for field in dataclasses.fields(cls)}
            passed = {name: settings.pop(name) for name in own if name in settings and name not in keys}
            made = from_keywords(cls, given | settings, function.__name__, **one_of)
            return function(made, **passed)

        return call

    return decorate


def _plain(value: Any) -> Any:
    """Paths as texts, which some keys take alone, and numpy's numbers as Python's."""
    if isinstance(value, PurePath):
        return str(value)
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _listed(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names)) or "nothing"


def _keys(cls: type[Any], prefix: str = "") -> list[str]:
    """The dotted keys of the configs inside a config class."""
    found: list[str] = []
    for name, hint in get_type_hints(cls, include_extras=True).items():
        inside = find_hint(hint, is_config)
        if inside is not None and name in {field.name for field in dataclasses.fields(cls)}:
            found += [f"{prefix}{name}.{field.name}" for field in dataclasses.fields(inside)]
            found += _keys(inside, f"{prefix}{name}.")
    return found
