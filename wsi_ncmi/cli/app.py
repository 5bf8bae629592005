"""The command ``wsi-ncmi``: one file per verb, registered here."""

import io
import os
import re
import sys
from collections.abc import Iterable
from enum import StrEnum
from itertools import pairwise
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from wsi_ncmi import __version__
from wsi_ncmi.cli import (
    audit,
    audit_log,
    clean,
    compare,
    config,
    convert,
    demo,
    doctor,
    encode_slides,
    encoders,
    evaluate,
    export,
    extract,
    grid,
    heatmap,
    inventory,
    losses,
    models,
    predict,
    pseudonymise,
    run,
    search,
    split,
    synth,
    train,
    verify,
    view,
)
from wsi_ncmi.cli.common import say_lines, tell
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.extras import MissingPackageError, require
from wsi_ncmi.core.logging import FORMAT_VARIABLE, is_json
from wsi_ncmi.core.streams import drop_stdout, prepare_streams

__all__ = ["app", "main"]


_SLIDES, _TRAIN, _ALL = ("slides",), ("train",), ("slides", "train")
# Each verb with the extras that it needs; the command line's own packages are there, or nothing of this is.
_PANELS: dict[str, dict[ModuleType, tuple[str, ...]]] = {
    "Slides": {
        inventory: _SLIDES, extract: _SLIDES, encode_slides: _SLIDES, verify: _SLIDES, view: _ALL,
        pseudonymise: _SLIDES,
    },
    "Training": {
        split: _TRAIN, audit: _TRAIN, train: _TRAIN, compare: _TRAIN, grid: _TRAIN, evaluate: ("report",),
        search: (*_TRAIN, "search"),
    },
    "New slides": {export: _TRAIN, predict: _ALL, heatmap: _ALL, audit_log: (), clean: ()},
    "Set-up": {
        doctor: (), config: (), encoders: (), models: (), losses: (), demo: _ALL, synth: _SLIDES,
    },
    "Whole jobs and other tools": {run: _ALL, convert: _SLIDES},
}  # fmt: skip
_EXTRAS = {module: extras for panel in _PANELS.values() for module, extras in panel.items()}


_TYPE = re.compile(r"^([A-Z]+) <[^>]*>$")  # Typer adds a positional argument's type to its name


class PanelCommand(TyperCommand):
    """A verb whose help has a heading for each panel of options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        rows = [
            (getattr(param, "rich_help_panel", None) or "Options", (_TYPE.sub(r"\1", record[0]), record[1]))
            for param in sorted(self.get_params(ctx), key=lambda each: each.param_type_name != "argument")
            if (record := param.get_help_record(ctx)) is not None
        ]
        _write_panels(formatter, rows)


class VerbGroup(TyperGroup):
    """The verbs; the flags of one are built when it is used, as its config classes take time to import."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._modules = {_name(module): module for module in _EXTRAS}
        # Their names and summaries are enough for the list and for the nearest one to a wrong name.
        self.commands = {name: TyperCommand(name) for name in self._modules}

    def main(self, *args: Any, **settings: Any) -> Any:
        """Runs the command line and ends the process; wrong usage and a full disk are said as all else."""
        code = 0
        try:
            code = super().main(*args, **{**settings, "standalone_mode": False}) or 0
            sys.stdout.flush()
        except OSError as error:
            if error.filename is not None:
                raise
            drop_stdout()
            code = 1
            tell(f"The output can't be written ({error.strerror or error}).", code)
        except InputError as error:  # of a flag that reads its own value, or a missing extra
            code = 2
            tell(str(error), code)
        except Exception as error:
            # Wrong usage; the class is of Typer's own copy of click and has no public name.
            if not hasattr(error, "format_message") or not hasattr(error, "show"):
                raise
            code, message = getattr(error, "exit_code", 2), error.format_message()
            text = io.StringIO()
            error.show(text)
            usage = text.getvalue().removesuffix(f"Error: {message}\n")
            if not is_json():
                say_lines(usage, err=True)
            if is_json() or usage != text.getvalue():
                tell(message, code)
        sys.exit(code)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        module = self._modules.get(cmd_name)
        if module is None:
            return None
        try:
            verb = self._verb(module, cmd_name)
        except MissingPackageError:  # of a config class that lies beside what it configures
            require(_EXTRAS[module], cmd_name)
            raise
        run = verb.invoke  # after --help, which needs no extra

        def invoke(ctx: Any) -> Any:
            require(_EXTRAS[module], cmd_name)
            return run(ctx)

        verb.invoke = invoke
        return verb

    def _verb(self, module: ModuleType, cmd_name: str) -> Any:
        if hasattr(module, "app"):
            group = typer.Typer(add_completion=False, rich_markup_mode=None)
            group.add_typer(module.app, name=cmd_name, context_settings=CONTEXT)
            parent: Any = typer.main.get_command(group)
            return parent.commands[cmd_name]
        verb = typer.Typer(add_completion=False, rich_markup_mode=None)
        function = module.FLAGS.command(module.command) if hasattr(module, "FLAGS") else module.command
        verb.command(cmd_name, cls=PanelCommand, context_settings=CONTEXT)(function)
        return typer.main.get_command(verb)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        _write_panels(
            formatter,
            [
                (panel, (_name(each), _summary(each)))
                for panel, modules in _PANELS.items()
                for each in modules
            ],
        )


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2].replace("_", "-")


def _summary(module: ModuleType) -> str:
    if hasattr(module, "command"):
        text = module.command.__doc__
    else:
        callback = module.app.registered_callback
        text = callback.callback.__doc__ if callback else module.app.info.help
    return str(text).partition("\n")[0]


def _write_panels(formatter: Any, rows: Iterable[tuple[str, tuple[str, str]]]) -> None:
    panels: dict[str, list[tuple[str, str]]] = {}
    for panel, row in rows:
        panels.setdefault(panel, []).append(row)
    for panel, lines in panels.items():
        with formatter.section(panel):
            formatter.write_dl(lines)


class LogFormat(StrEnum):
    """Form of log lines."""

    TEXT = "text"
    JSON = "json"


CONTEXT = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="wsi-ncmi",
    cls=VerbGroup,
    help="Whole-slide images to slide-level subtypes: exact tiles, cached features, MIL with the NCMI loss.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=CONTEXT,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wsi-ncmi {__version__}")
        raise typer.Exit(0)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            "--log-format", envvar=FORMAT_VARIABLE, help="Log lines as text, or as one JSON object each."
        ),
    ] = None,
) -> None:
    """Whole-slide images to slide-level subtypes: exact tiles, cached embeddings, MIL with the NCMI loss."""
    if log_format is not None:
        os.environ[FORMAT_VARIABLE] = log_format.value  # worker processes inherit it


def main() -> None:
    """Entry point of the console script."""
    # Usage errors and libraries' messages come before the flag is read where flags are.
    if "--log-format=json" in sys.argv or ("--log-format", "json") in pairwise(sys.argv):
        os.environ[FORMAT_VARIABLE] = LogFormat.JSON
    prepare_streams()
    app()
