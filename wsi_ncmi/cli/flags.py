"""Flags taken from a config class: name, type, help and default of each come from its field.

A verb lists the fields that it offers in a :class:`ConfigFlags`; ``training.*`` offers all fields below
``training``. The values go to :func:`wsi_ncmi.core.config.read_config` as they were written, so that a wrong
one is the same sentence as in a YAML file.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NoReturn,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, Settings, check_there, finish, guarded

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows.result import JobResult

_MAX_DEFAULT_CHARS = 60  # a longer default is not repeated in the help


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A field on the command line, as far as the field itself doesn't say.

    Attributes:
        name: The flag; empty = ``--`` and the last part of the key.
        panel: Heading in the help.
        help: Help text; empty = the first sentence of the field's own.
        metavar: Name of the value in the help; empty = after the field's type.
        argument: It is positional, and needed.
        required: It must be given.
        default: Value where it isn't given; None leaves the configuration's own.
        sets: Value that a switch stands for.
        rest: Key of a list that takes the values after the first where the flag is given several times.
        single: The value is the only item of the list, commas and all.
        there: It names files or folders that must be there; a missing one is told before the verb's own
            imports, of which torch alone takes seconds.
        folder: It names a folder to write to; one that can't be is told as early.
    """

    name: str = ""
    panel: str = "Input"
    help: str = ""
    metavar: str = ""
    argument: bool = False
    required: bool = False
    default: Any = None
    sets: Any = True
    rest: str = ""
    single: bool = False
    there: bool = False
    folder: bool = False


@dataclass(frozen=True)
class Given:
    """The flags of one call.

    Attributes:
        flags: The verb's flags.
        values: Dotted key → value of each flag that was given.
        progress: Progress of the call.
        setting: ``a.b=value`` of ``--set``.
        quiet: Print only results and errors.
        debug: Show the traceback of an error.
        as_json: Print the result as one JSON object.
    """

    flags: ConfigFlags
    values: Mapping[str, Any]
    progress: ProgressReporter
    setting: Sequence[str] | None = None
    quiet: bool = False
    debug: bool = False
    as_json: bool = False

    def read(self, more: Mapping[str, Any] | None = None, *, file: Path | None = None) -> Any:
        """The configuration: the file, then flags, then ``--set``.

        Args:
            more: Dotted key → value of what the verb works out itself; None values are left out.
            file: YAML file; None = the defaults.

        Raises:
            InputError: As :func:`wsi_ncmi.core.config.read_config`.
        """
        from wsi_ncmi.core.config import read_config
        from wsi_ncmi.core.files import check_folder

        config = read_config(
            self.flags.cls,
            file,
            flags={**self.values, **(more or {})},
            overrides=self.setting or (),
            flag_names=self.flags.names(),
            one_of=self.flags.one_of,
        )
        names = self.flags.names()
        for key, flag in self.flags.table.items():
            for each in (key, flag.rest) if flag.there else ():
                check_there(attrgetter(each)(config) if each else None, names[each] if each else "")
            if flag.folder and (folder := attrgetter(key)(config)) is not None:
                check_folder(folder, names[key])
        return config

    def finish(self, result: JobResult) -> NoReturn:
        """Ends the call as :func:`wsi_ncmi.cli.common.finish` does."""
        finish(result, quiet=self.quiet, as_json=self.as_json)


def _shared(
    setting: Settings = None, quiet: Quiet = False, debug: Debug = False, as_json: AsJson = False
) -> None:
    """The flags that most verbs have."""


@dataclass(frozen=True)
class ConfigFlags:
    """The fields of a config class that a verb offers as flags.

    Attributes:
        config: ``module.Class`` of the config class, imported when the verb is used: it takes time; empty for
            a verb that has its own parameters alone.
        table: Dotted key → how it appears; a key that ends in ``*`` stands for all fields there that have no
            entry of their own.
        one_of: As in :func:`wsi_ncmi.core.config.read_config`.
        shared: Names of the parameters of :func:`_shared` that it has.
    """

    config: str = ""
    table: Mapping[str, Flag] = field(default_factory=dict)
    one_of: Mapping[str, str] = field(default_factory=dict)
    shared: tuple[str, ...] = ("setting", "quiet", "debug", "as_json")

    @property
    def cls(self) -> type[Any]:
        """The config class."""
        module, _, name = self.config.rpartition(".")
        found: type[Any] = getattr(importlib.import_module(module), name)
        return found

    def names(self) -> dict[str, str]:
        """Dotted key → flag as the user writes it."""
        names = {key: _flag_name(key, flag) for key, flag in self._entries()}
        return names | {flag.rest: names[key] for key, flag in self._entries() if flag.rest}

    def command(self, function: Callable[..., None]) -> Callable[..., None]:
        """The function that Typer registers: the flags, and the function's own parameters.

        Its errors are one sentence each and the exit code that fits: :func:`wsi_ncmi.cli.common.guarded`.

        Args:
            function: Takes a :class:`Given` first, and further Typer parameters.
        """
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        offered = inspect.signature(_shared, eval_str=True).parameters
        shared = [offered[name] for name in self.shared]
        entries = {key.replace(".", "__"): (key, flag) for key, flag in self._entries()}
        parameters = [_parameter(name, *entry, self.cls) for name, entry in entries.items()]

        def command(**arguments: Any) -> None:
            common = {name: arguments.pop(name) for name in self.shared}
            values: dict[str, Any] = {}
            for name, (key, flag) in entries.items():
                value = arguments.pop(name)
                if flag.rest and value:
                    values[flag.rest] = value[1:] or None
                    value = value[0]
                values[key] = _value(value, flag, self.cls, key)
            given = {key: value for key, value in values.items() if value is not None}
            guarded(
                lambda progress: function(Given(self, given, progress, **common), **arguments),
                quiet=common.get("quiet", False),
                debug=common.get("debug", False),
            )

        keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *shared)]
        command.__signature__ = inspect.Signature([*parameters, *keyword_only])  # type: ignore[attr-defined]
        command.__name__, command.__doc__, command.__annotations__ = function.__name__, function.__doc__, {}
        return command

    def _entries(self) -> Iterator[tuple[str, Flag]]:
        for key, flag in self.table.items():
            if not key.endswith("*"):
                yield key, flag
                continue
            owner, _ = _field(self.cls, key)
            for each in dataclasses.fields(owner) if owner else ():
                if key[:-1] + each.name not in self.table:
                    yield key[:-1] + each.name, flag


PLAIN = ConfigFlags(shared=("quiet", "debug", "as_json"))


def with_keys(message: str, flags: Iterable[ConfigFlags], own: Collection[str]) -> str:
    """A message whose remedies name keys of the configuration in place of flags that a verb doesn't have.

    Args:
        message: What is wrong and what helps, in the flags of other verbs.
        flags: The flags of those verbs.
        own: Flags that the verb has itself.
    """
    keys = {name: key for each in flags for key, name in each.names().items() if name not in own}
    return re.sub(
        r"(?<![\w-])--[a-z][a-z-]*",
        lambda flag: f"{keys[flag[0]]!r}" if flag[0] in keys else flag[0],
        message,
    )


def _parameter(name: str, key: str, flag: Flag, config: type[Any]) -> inspect.Parameter:
    from pydantic_core import PydanticUndefined

    from wsi_ncmi.core.config import field_help

    last = key.rpartition(".")[2]
    owner, hint = _field(config, key)
    kind, metavar = _kind(hint)
    text = flag.help or _first_sentence(field_help(owner)[last] if owner else "")
    needed = flag.argument or flag.required
    defaults = {each.name: each.default for each in dataclasses.fields(owner)} if owner else {}
    default = flag.default or defaults.get(last)
    default = None if needed else getattr(default, "default", default)  # of a pydantic Field
    if kind != "switch" and default not in (None, (), "", dataclasses.MISSING, PydanticUndefined):
        items = default if isinstance(default, tuple) else (default,)
        shown = ",".join(str(getattr(item, "name", "") or item) for item in items)
        if len(shown) <= _MAX_DEFAULT_CHARS:
            text = f"{text.rstrip('.')} ({shown})."
    base: Any = list[str] if flag.rest else bool if kind == "switch" else str
    settings: dict[str, Any] = {"help": text, "rich_help_panel": flag.panel, "show_default": False}
    if flag.argument:
        info: Any = typer.Argument(metavar=flag.metavar or last.upper(), **settings)
    elif kind == "switch":
        info = typer.Option(_flag_name(key, flag), **settings)
    else:
        metavar = flag.metavar or (metavar.partition(",")[0] if flag.single else metavar)
        info = typer.Option(_flag_name(key, flag), metavar=metavar, **settings)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if needed else None,
        annotation=Annotated[base if needed else base | None, info],
    )


def _value(value: Any, flag: Flag, config: type[Any], key: str) -> Any:
    """The value as the configuration takes it; None where the flag wasn't given."""
    if value is None or value is False:
        return flag.default
    if value is True:
        return flag.sets
    if flag.single:
        return [value]
    return value.split(",") if _kind(_field(config, key)[1])[0] == "list" and not flag.rest else value


def _flag_name(key: str, flag: Flag) -> str:
    last = key.rpartition(".")[2]
    return (flag.metavar or last.upper()) if flag.argument else flag.name or "--" + last.replace("_", "-")


def _field(config: type[Any], key: str) -> tuple[type[Any] | None, Any]:
    """The config class that has the field of a dotted key, and the field's type.

    The class is None, and the type text, below a field whose class depends on a name (a loss, a model).
    """
    owner, hint = config, None
    for part in key.split("."):
        if hint is not None:
            plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
            if not (isinstance(plain, type) and dataclasses.is_dataclass(plain)):
                return None, str
            owner = plain
        hint = get_type_hints(owner, include_extras=True).get(part, str)
    return owner, hint


def _kind(hint: Any) -> tuple[str, str]:
    """``switch``, ``list`` or ``text``, and the name of the value for the help."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, types.UnionType):
        kinds = [_kind(each) for each in arguments if each is not type(None)]
        return kinds[0][0], "|".join(metavar for _, metavar in kinds)
    if origin is Literal:
        return "text", "|".join(map(str, arguments))
    if hint is bool:
        return "switch", ""
    if origin is tuple and Ellipsis in arguments:  # one of fixed length is written as its validator says
        return "list", ",".join([_kind(arguments[0])[1], "…"])
    return "text", {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(hint, "TEXT")


def _first_sentence(text: str) -> str:
    first = re.split(r"(?<!et al)\. |; None ", text.replace("``", ""), maxsplit=1)[0]
    return first.rstrip(".") + "."
