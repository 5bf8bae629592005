"""Reading, overriding, explaining and writing the YAML configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from wsi_ncmi.core.config import config_from, explain
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.provenance import relative_paths
from wsi_ncmi.workflows.config import JobConfig, recorded

__all__ = [
    "build_options", "config_yaml", "find_config", "load_config", "load_options",
    "shipped_configs",
]  # fmt: skip

_Config = TypeVar("_Config")


def shipped_configs(kind: str = "") -> dict[str, Path]:
    """Configurations that come with the package: name → file.

    Args:
        kind: Folder below ``configs/`` of another kind of job; empty = whole jobs on slides.
    """
    inside = Path(str(resources.files("wsi_ncmi"))) / "configs"
    beside = Path(str(resources.files("wsi_ncmi"))).parent / "configs"  # a checkout installed as editable
    folder = (inside if inside.is_dir() else beside) / kind
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(name_or_path: str | Path, kind: str = "") -> Path:
    """Finds a configuration by path, or by the name of one that comes with the package.

    Args:
        name_or_path: YAML file, or name.
        kind: As in :func:`shipped_configs`.

    Raises:
        InputError: There is no such file; the message lists the names.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = shipped_configs(kind)
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    raise InputError(
        f"There is no configuration {name_or_path}; give a YAML file or one of {', '.join(shipped)}."
    )


def load_config(
    name_or_path: str | Path | None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> JobConfig:
    """Reads a configuration and applies ``--set`` overrides.

    Args:
        name_or_path: YAML file, name of a shipped configuration, or None for the defaults.
        overrides: ``a.b=value`` with the value in YAML; lists by index (``losses.0.temperature=1``). They
            come last.
        values: Nested values of flags; None values are flags that were not given.

    Returns:
        The validated configuration; relative paths are relative to the working directory.

    Raises:
        InputError: The file can't be read or parsed, or a key or value is wrong; the message names the key
            and the nearest valid one.
    """
    return load_options(JobConfig, name_or_path, overrides, values)


def load_options(
    cls: type[_Config],
    name_or_path: str | Path | None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    kind: str = "",
) -> _Config:
    """Reads the configuration of any kind of job; see :func:`load_config`.

    Args:
        cls: Options class of the whole configuration.
        name_or_path: As there.
        overrides: As there.
        values: As there.
        kind: As in :func:`shipped_configs`.

    Raises:
        InputError: As there.
    """
    content: dict[str, Any] = {}
    where = "the command line"
    if name_or_path is not None:
        path = find_config(name_or_path, kind)
        where = str(path)
        content = _parse(path)
    _merge(content, values or {})
    for override in overrides:
        _apply(content, override)
    try:
        return TypeAdapter(cls).validate_python(content)
    except ValidationError as error:
        raise InputError(explain(error, cls, content, lambda _: where)) from error


def build_options(cls: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """Builds one room's options; a wrong key or value is an ``InputError`` in one sentence."""
    return config_from(cls, values, where)


def config_yaml(config: JobConfig, *, absolute_paths: bool = True) -> str:
    """The whole configuration as YAML, every default written out.

    Args:
        config: The configuration.
        absolute_paths: False cuts them to their last part, for a file that may leave the machine.
    """
    content = recorded(config)
    if not absolute_paths:
        content = relative_paths(content)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"The configuration {path} can't be read: {reason}.") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"The configuration {path} must be a mapping of keys to values.")
    return content


def _merge(content: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            node = content.setdefault(key, {})
            if isinstance(node, dict):
                _merge(node, value)
        elif value is not None:
            content[key] = value


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise InputError(f"--set takes a.b=value, got {override!r}.")
    try:
        value = yaml.safe_load(text) if text.strip() else None
    except yaml.YAMLError as error:
        raise InputError(f"The value of --set {override!r} is no YAML; quote it.") from error
    node: Any = content
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        last = following is None
        if isinstance(node, list):
            if not part.isdecimal() or int(part) >= len(node):
                raise InputError(f"--set {override!r}: {part!r} is no index of a list of {len(node)} items.")
            index: Any = int(part)
            if not last and isinstance(node[index], str):
                node[index] = {"name": node[index]}
        elif isinstance(node, dict):
            index = part
            if not last and not isinstance(node.get(part), dict | list):
                node[part] = {}
        else:
            raise InputError(f"--set {override!r}: {part!r} is inside a single value.")
        if last:
            node[index] = value
        else:
            node = node[index]
