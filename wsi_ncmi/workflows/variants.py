"""One configuration, several runs: a protocol's encoders, and the protocol as others carried it out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from wsi_ncmi.core.config import config_from
from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.core.files import path_safe
from wsi_ncmi.workflows.config import JobConfig, config_adapter
from wsi_ncmi.workflows.result import JobResult

__all__ = ["run_variants", "variant_of"]


def run_variants(
    config: JobConfig, only: Collection[str], run: Callable[[JobConfig, Path], JobResult]
) -> JobResult:
    """Runs the variants of a configuration one after the other.

    A variant that can't be run (its weights are missing, its split leaks) costs only itself.

    Args:
        config: With ``variants``.
        only: Names to run; empty = all.
        run: Runs one configuration into a run folder.

    Returns:
        Files as ``<variant>.<name>``; failures and notes with the variant's name in front.

    Raises:
        InputError: A name or a key of a variant is wrong (nothing was started), or no variant could be run.
    """
    unknown = [name for name in only if name not in config.variants]
    if unknown:
        known = ", ".join(config.variants) or "none"
        raise InputError(f"The configuration has no variant {unknown[0]!r}; it has: {known}.")
    chosen = {name: variant_of(config, name) for name in config.variants if not only or name in only}
    if len({path_safe(name) for name in chosen}) < len(chosen):
        raise InputError("Two variants would share a folder; give them other names.")
    files: dict[str, Path] = {}
    failures: list[str] = []
    notes: list[str] = []
    errors: list[InputError] = []
    for name, variant in chosen.items():
        try:
            result = run(variant, config.out / "run" / path_safe(name))
        except WsiNcmiError as error:
            failures.append(f"{name}: {error}")
            errors += [error] if isinstance(error, InputError) else []
            continue
        files |= {f"{name}.{key}": path for key, path in result.files.items()}
        failures += [f"{name}: {failure}" for failure in result.failures]
        notes += [f"{name}: {note}" for note in result.notes]
    if len(errors) == len(chosen):
        raise errors[0]
    return JobResult(files, tuple(failures), tuple(notes))


def variant_of(config: JobConfig, name: str) -> JobConfig:
    """The configuration of one variant, validated; its title is that of the whole with the name behind it.

    Raises:
        InputError: A key or value of the variant is wrong.
    """
    content: dict[str, Any] = config_adapter().dump_python(config, mode="json", exclude={"variants"})
    content["name"] = f"{config.name}: {name}"
    _merge(content, config.variants[name])
    return config_from(JobConfig, content, f"the variant {name!r}")


def _merge(content: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict) and "name" not in value:
            _merge(content[key], value)
        else:
            # A mapping with a name is another encoder, model or loss: no setting of the first one stays.
            content[key] = copy.deepcopy(value)
