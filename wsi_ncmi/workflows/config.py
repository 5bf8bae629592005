"""Configuration of a whole job: extraction and training in one YAML file, shipped or the user's own."""

import copy
import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from wsi_ncmi.core.config import configclass, contradiction, is_written, read_config, within
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import path_safe
from wsi_ncmi.core.provenance import relative_paths
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.training.config import TrainConfig

# They say what one call does, not what the job is.
_RUN_TIME_KEYS = frozenset({"only", "shard", "inventory", "known_failures", "overwrite", "allow_leak"})


@configclass
class JobConfig(TrainConfig, ExtractConfig):
    """A whole job, from slides (or features) and labels to the report.

    Attributes:
        slides: Folder of slides; None when ``features`` is given.
        features: Features that exist already (folder or packed ``.npz``); None extracts them from ``slides``.
        out: Output folder: ``features/``, ``tissue/``, ``thumbnails/``, ``ledger.csv`` and ``run/``.
        overwrite: Replace features and runs of another configuration.
        variants: Name → keys of this configuration that differ; each is a run of its own in ``OUT/run/NAME``,
            and those with the same features share them. Empty = one run, in ``OUT/run``.
    """

    out: Path = Path("out")
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        folders: dict[str, str] = {}
        for name, values in self.variants.items():
            place = ("variants", name)
            if not re.search(r"\w", name) or re.search(r"[/\\\x00-\x1f]", name):
                raise contradiction("a variant's name is that of its folder; choose another", place)
            for key in ("variants", "out"):
                if key in values:
                    raise contradiction("all variants share the job's own; leave it out", (*place, key))
            other = folders.setdefault(path_safe(name).casefold(), name)
            if other != name:
                raise contradiction("they would share a folder; rename one", place, ("variants", other))
            if {"loss", "losses"} <= set(values):
                raise contradiction("both say it; leave one out", (*place, "loss"), (*place, "losses"))
            try:
                self.variant(name)
            except ValidationError as error:
                content = self._content_of(name)
                raise within(error, JobConfig, content, partial(self._place, name)) from error
        return self

    def variant(self, name: str) -> "JobConfig":
        """The configuration of one variant; its title is that of the whole with the name behind it."""
        return config_adapter().validate_python(self._content_of(name))

    def _content_of(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = config_adapter().dump_python(self, mode="json", exclude={"variants"})
        content["name"] = f"{self.name}: {name}"
        own = dict(self.variants[name])
        if "loss" in own:
            own["losses"] = [own.pop("loss")]
        _merge(content, own)
        return content

    def _place(self, name: str, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """The path of a fault in a variant where it is the variant's own, else that in the whole."""
        own = self.variants[name]
        if path[:2] == ("losses", 0) and "loss" in own:
            path = ("loss", *path[2:])
        return ("variants", name, *path) if path and is_written(own, path) else path


def _merge(content: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict) and "name" not in value:
            _merge(content[key], value)
        else:
            # A mapping with a name is another encoder, model or loss: no setting of the first one stays.
            content[key] = copy.deepcopy(value)


def config_adapter() -> TypeAdapter[JobConfig]:
    """The pydantic adapter of the configuration (validation, JSON schema, dumping)."""
    return TypeAdapter(JobConfig)


def recorded(config: JobConfig) -> dict[str, Any]:
    """The configuration as JSON-ready values, every default written out, without what concerns one call."""
    content = config_adapter().dump_python(config, mode="json")
    return {key: value for key, value in content.items() if key not in _RUN_TIME_KEYS}


def recorded_yaml(config: JobConfig) -> str:
    """:func:`recorded` as YAML, paths cut to their last part: the file may leave the machine."""
    return yaml.safe_dump(relative_paths(recorded(config)), sort_keys=False, allow_unicode=True)


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
    flags: Mapping[str, Any] | None = None,
) -> JobConfig:
    """Reads the configuration of a whole job.

    Args:
        name_or_path: YAML file, name of a shipped configuration, or None for the defaults.
        overrides: ``a.b=value`` of ``--set``; they come last.
        flags: Dotted key → value of a flag; None values are flags that were not given.

    Returns:
        The validated configuration; relative paths are relative to the working directory.

    Raises:
        InputError: As :func:`wsi_ncmi.core.config.read_config`.
    """
    file = None if name_or_path is None else find_config(name_or_path)
    return read_config(JobConfig, file, flags=flags, overrides=overrides, one_of={"loss": "losses"})
