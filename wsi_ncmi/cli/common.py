"""Shared by all verbs: progress, logging, exit codes and one-sentence errors."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from wsi_ncmi.core.errors import InputError, WsiNcmiError, storage_fault
from wsi_ncmi.core.heartbeat import beat
from wsi_ncmi.core.interrupts import sigterm_as_interrupt
from wsi_ncmi.core.logging import configure_logging, is_json, redact
from wsi_ncmi.core.progress import ProgressReporter, progress_for
from wsi_ncmi.core.values import printable

if TYPE_CHECKING:
    from wsi_ncmi.workflows.result import JobResult

__all__ = [
    "AsJson",
    "Debug",
    "Quiet",
    "Settings",
    "existing_path",
    "fail",
    "finish",
    "say",
    "say_json",
    "say_lines",
    "tell",
]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Change one key of the configuration; may be repeated."),
]

_MAX_SHOWN = 20


class OutputError(OSError):
    """Standard output can't be written to."""


def check_there(paths: str | Path | Iterable[Path] | None, flag: str) -> None:
    """Makes sure that what a flag names is there; nothing is opened.

    Args:
        paths: One or several paths, or labels as ``ADAPTER:FILE``; None = none was given.
        flag: The flag or argument, for the message.

    Raises:
        InputError: The first that is empty or isn't there.
    """
    if paths is None:
        return
    for path in (paths,) if isinstance(paths, str | Path) else paths:
        file = Path(path)
        if isinstance(path, str):
            from wsi_ncmi.cohorts.labels import adapter_of, parse_spec

            spec = parse_spec(path)
            adapter_of(spec)
            file = spec.path
        if not file.exists():
            raise InputError(f"There is no file or folder {file}; check {flag}.")


def named_path(text: str, flag: str) -> Path:
    """The path that a flag names; an empty one would be the working folder.

    Raises:
        InputError: It is empty.
    """
    if not text.strip():
        raise InputError(f"{flag} is empty; name a file or folder ('.' is this one).")
    return Path(text)


def existing_path(text: str, flag: str) -> Path:
    """The path that a flag names, of a file or folder that is there."""
    path = named_path(text, flag)
    check_there(path, flag)
    return path


def guarded(action: Callable[[ProgressReporter], Any], *, quiet: bool, debug: bool) -> Any:
    """Runs an action; an error becomes one sentence on standard error and the right exit code.

    1 some items failed, 2 wrong input, 130 interrupted. A failing standard output is left to the caller.
    """
    configure_logging(logging.WARNING if quiet else logging.INFO)
    beat()
    try:
        with sigterm_as_interrupt():
            return action(progress_for(quiet=quiet))
    except (typer.Exit, OutputError):
        raise
    except KeyboardInterrupt:
        fail("Interrupted; the same command resumes where this one stopped.", 130)
    except WsiNcmiError as error:
        if debug:
            _trace()
        fail(str(error), 2 if isinstance(error, InputError) else 1)
    except Exception as error:
        if debug:
            _trace()
        fail(
            storage_fault(error)
            or f"Internal error ({type(error).__name__}: {error}); run again with --debug for the traceback.",
            1,
        )


def fail(message: str, code: int) -> NoReturn:
    """Ends the process with one sentence on standard error."""
    tell(message, code)
    raise typer.Exit(code)


def tell(message: str, code: int) -> None:
    """Says on standard error why the process ends with a code."""
    if is_json():
        configure_logging(logging.INFO)  # wrong usage comes before a verb's own
        logging.getLogger("wsi_ncmi").error(message, extra={"fields": {"exit_code": code}})
    else:
        say(f"Error: {message}" if code != 130 else message, err=True)


def say(line: object, *, err: bool = False) -> None:
    """Prints a line without secrets; whatever a terminal would obey in it, or not show, is an escape.

    Raises:
        OutputError: Standard output can't be written to; where standard error can't, nobody can be told.
    """
    _echo(printable(redact(str(line))), err=err)


def say_lines(text: str, *, err: bool = False) -> None:
    """Prints a text of several lines, each as :func:`say` does."""
    for line in text.removesuffix("\n").split("\n"):
        say(line, err=err)


def say_json(value: Any, indent: int | None = None) -> None:
    """Prints a value as JSON, in ASCII: the same value whatever the terminal can show."""
    _echo(json.dumps(value, indent=indent))


def _echo(text: str, *, err: bool = False) -> None:
    try:
        typer.echo(text, err=err)
    except OSError as error:
        if not err:
            raise OutputError(*error.args) from error


def _trace() -> None:
    """The traceback of the present error; libraries put headers and addresses into theirs."""
    if is_json():
        logging.getLogger("wsi_ncmi").error("traceback", exc_info=True)
    else:
        say_lines(traceback.format_exc(), err=True)


def finish(result: JobResult, *, quiet: bool, as_json: bool) -> NoReturn:
    """Prints what a job left, its headline last, and ends the process with its exit code."""
    from wsi_ncmi.workflows.result import headlines

    numbers, lines = headlines(result.files)
    if as_json:
        content = {
            "files": {name: str(path) for name, path in result.files.items()},
            "failures": list(result.failures),
            "notes": list(result.notes),
            **({"result": numbers} if numbers else {}),
        }
        say_json(content)
    else:
        if not quiet:
            _some(result.notes, "", err=False)
        _some(result.failures, "failed: ", err=True)
        _files(result.files)
        for line in lines:
            say(line)
    raise typer.Exit(result.exit_code)


def _some(lines: tuple[str, ...], prefix: str, *, err: bool) -> None:
    for line in lines[:_MAX_SHOWN]:
        say(f"{prefix}{line}", err=err)
    if len(lines) > _MAX_SHOWN:
        say(f"{prefix}… and {len(lines) - _MAX_SHOWN} more", err=err)


def _files(files: Mapping[str, Path]) -> None:
    # The report comes last: it is what a person opens next.
    for name in sorted(files, key=lambda name: name == "report"):
        say(f"{name}: {files[name]}")
