"""Pages of the site that are made from the program itself: commands, settings, presets, files of the root."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from wsi_ncmi.cli.app import _PANELS, _name, app
from wsi_ncmi.cli.flags import _kind
from wsi_ncmi.core.config import field_help
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.zoo import zoo_models
from wsi_ncmi.losses import list_losses
from wsi_ncmi.mil import list_models
from wsi_ncmi.prediction import ExportConfig, HeatmapConfig, PredictConfig
from wsi_ncmi.workflows.config import JobConfig

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "CHANGELOG.md": "development/changelog.md",
    "CONTRIBUTING.md": "development/contributing.md",
    "docker/README.md": "how-to/containers.md",
}
"""Files outside ``docs/`` that are pages of the site."""
COMMON = {"--set", "--quiet", "--debug", "--json", "--help"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made here."""
    made = {"reference/cli.md": cli_page(), "reference/configuration.md": configuration_page()}
    made |= {page: (ROOT / source).read_text(encoding="utf-8") for source, page in OUTSIDE.items()}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in the tables, and leads links that cross the border of ``docs/`` to their pages."""
    tables = {
        "presets": preset_table, "parameters": parameter_table, "grids": grid_table, "zoo": zoo_table,
    }  # fmt: skip
    for mark, table in ((f"<!-- {name} -->", table) for name, table in tables.items()):
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return inner_links(markdown, page.file.src_uri)


def inner_links(markdown: str, path: str) -> str:
    """A page's text with links to files of the root as links of the site; other files are named only."""
    source = {page: source for source, page in OUTSIDE.items()}.get(path, f"docs/{path}")

    def link(match: re.Match[str]) -> str:
        text, written, anchor = match.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), written))
        inside = OUTSIDE.get(target, target.removeprefix("docs/"))
        if inside != target:
            return f"[{text}]({posixpath.relpath(inside, posixpath.dirname(path) or '.')}{anchor or ''})"
        return text if (ROOT / target).exists() else str(match[0])

    return re.sub(r"\[([^]\n]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)", link, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Holds that a page loads nothing from elsewhere: the site is read on machines without a network."""
    loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:[^\s\">]+)", output)
    loaded += re.findall(
        r"<link\b[^>]*rel=\"?(?:stylesheet|preload|icon)\b[^>]*href=\"?(https?:[^\s\">]+)", output
    )
    if loaded:
        raise PluginError(f"{page.file.src_uri} would load {loaded[0]}.")
    return output


def cli_page() -> str:
    """Every verb with its flags."""
    root: Any = typer.main.get_command(app)
    context = root.make_context("wsi-ncmi", ["doctor"])
    lines = ["# Commands", "", "Made from the program; `wsi-ncmi VERB --help` prints the same.", ""]
    lines += [
        "Exit codes: 0 all done; 1 finished, but some items failed (the ledger says which); 2 the input, the",
        "configuration or the usage is wrong, and nothing was started; 130 interrupted, to be resumed by the",
        "same command. Every verb with a configuration takes `--set A.B=VALUE` for any key of",
        "[the configuration](configuration.md); `--json` prints the result as one JSON object, `--quiet`",
        "only results and errors, `--debug` the traceback of an error. `wsi-ncmi --log-format json VERB`",
        "makes every line of stderr a JSON object.",
    ]
    for panel, modules in _PANELS.items():
        lines += ["", f"## {panel}"]
        for module in modules:
            lines += _command(root.get_command(context, _name(module)), f"wsi-ncmi {_name(module)}", context)
    return "\n".join(lines) + "\n"


def _command(command: Any, name: str, parent: Any, depth: int = 3) -> Iterator[str]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    about, _, example = (command.help or "").partition("Example:")
    yield from ("", f"{'#' * depth} {name}", "", _plain(about.strip()))
    if example:
        yield from ("", "```sh", " ".join(example.split()), "```")
    panels: dict[str, list[str]] = {}
    for parameter in sorted(command.get_params(context), key=lambda each: each.param_type_name != "argument"):
        record = parameter.get_help_record(context)
        if record and not COMMON & set(parameter.opts):
            flag = re.sub(r" <[^>]*>$", "", record[0])
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            panels.setdefault(panel, []).append(_row(f"`{flag}`", record[1]))
    for panel, rows in panels.items():
        yield from ("", f"| {panel} | |", "|---|---|", *rows)
    for each in getattr(command, "commands", {}).values():
        yield from _command(each, f"{name} {each.name}", context, depth + 1)


def configuration_page() -> str:
    """Every key of a YAML file and of ``--set``."""
    lines = [
        "# Configuration",
        "",
        "Made from the config classes. `wsi-ncmi config init` writes these keys as a",
    ]
    lines += [
        "commented YAML file, `wsi-ncmi config schema` prints the JSON schema that editors check it with,"
    ]
    lines += ["and `--set a.b=value` changes any of them for one call.", "", "## A job (`wsi-ncmi run`)", ""]
    lines += ["`extract`, `train`, `compare` and `evaluate` take the keys of their own stages.", ""]
    lines += _settings(JobConfig)
    lines += ["", "## Losses", "", "Keys below `losses.0`, or `loss` where there is one.", ""]
    for loss in list_losses():
        lines += ["", f"### {loss.name}", "", f"{loss.summary}. {loss.paper}.", "", *_settings(loss, depth=4)]
    lines += ["", "## Aggregators", "", "Keys below `model`.", ""]
    for model in list_models():
        lines += [
            "",
            f"### {model.name}",
            "",
            f"{model.summary}. {model.paper}.",
            "",
            *_settings(model, depth=4),
        ]
    for verb, cls in {"predict": PredictConfig, "export": ExportConfig, "heatmap": HeatmapConfig}.items():
        lines += ["", f"## wsi-ncmi {verb}", "", *_settings(cls)]
    return "\n".join(lines) + "\n"


def _settings(cls: type[Any], prefix: str = "", depth: int = 3) -> Iterator[str]:
    """A table of a config class's own keys, then a section for each config below it."""
    texts, hints = field_help(cls), get_type_hints(cls, include_extras=True)
    defaults: Mapping[str, Any] = vars(cls()) if _complete(cls) else {}
    below = {}
    yield from ("| key | value | default | |", "|---|---|---|---|")
    for field in dataclasses.fields(cls):
        value = defaults.get(field.name)
        if dataclasses.is_dataclass(value) and not hasattr(value, "summary"):
            below[field.name] = type(value)
            continue
        kind = _kind(hints[field.name])[1] or "true|false"
        shown = "" if value in (None, (), {}, "") else f"`{_shown(value)}`"
        yield _row(f"`{prefix}{field.name}`", kind, shown, texts.get(field.name, ""))
    for name, owner in below.items():
        about = _plain((owner.__doc__ or "").partition("\n")[0])
        yield from ("", f"{'#' * depth} {prefix}{name}", "", about, "")
        yield from _settings(owner, f"{prefix}{name}.", depth + 1)


def _complete(cls: type[Any]) -> bool:
    missing = dataclasses.MISSING
    return all(
        each.default is not missing or each.default_factory is not missing for each in dataclasses.fields(cls)
    )


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    return str(getattr(value, "name", value)) if not isinstance(value, bool) else str(value).lower()


def _plain(text: str) -> str:
    """A docstring's marks as Markdown's."""
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text).replace("``", "`")


def _row(*cells: str) -> str:
    marked = (_plain(" ".join(cell.split())).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(re.sub(r'<(?=[^`]*(?:`[^`]*`[^`]*)*$)', '&lt;', cell) for cell in marked)} |"


def preset_table() -> str:
    """The published encoders with the commands that fetch and use each."""
    lines = [
        "| `--encoder` | µm/px | tile px | width | licence | encoder | commands |",
        "|---|---|--:|--:|---|---|---|",
    ]
    for preset in presets().values():
        resolution = ", ".join(f"{mpp:g}" for mpp in preset.mpp)
        short = preset.licence.partition(" (")[0]
        licence = (short if preset.commercial else f"**{short}**") + (", gated" if preset.gated else "")
        how = f"fetch {preset.weights_key}" if preset.hub else f"import FILE --as {preset.weights_key}"
        both = (f"encoders {how}", f"extract slides --out features --encoder {preset.key}")
        commands = "<br>".join(f"`wsi-ncmi {command}`" for command in both)
        lines.append(
            f"| `{preset.key}` | {resolution} | {preset.tile_px} | {preset.embed_dim} | {licence} | "
            f"{preset.title} | {commands} |"
        )
    return "\n".join(lines)


def parameter_table() -> str:
    """Parameters of each published encoder, and what they were compared with."""
    lines = ["| key | parameters | equal to |", "|---|--:|---|"]
    for preset in presets().values():
        source = preset.published_by or "– (unverified)"
        lines.append(f"| `{preset.key}` | {preset.parameters:,} | {source} |")
    return "\n".join(lines)


def zoo_table() -> str:
    """Encoders of lazyslide-models: those served, and why others are not."""
    lines = ["| `lazyslide:` | takes | runs code | preset | |", "|---|---|---|---|---|"]
    for model in zoo_models().values():
        kind = "slides" if model.slide else "tiles"
        preset = f"`{model.preset}`" if model.preset else ""
        needs = f"needs {', '.join(model.packages)}" if model.packages else ""
        why = f"**not served**: {model.refused}" if model.refused else needs
        lines.append(f"| `{model.key}` | {kind} | {'yes' if model.code else 'no'} | {preset} | {why} |")
    return "\n".join(lines)


def grid_table() -> str:
    """Resolution and tile edge of each encoder."""
    lines = ["| encoder | µm/px | tile px | edge of a tile | values a tile |", "|---|---|--:|--:|--:|"]
    for preset in presets().values():
        resolution = ", ".join(f"{mpp:g}" for mpp in preset.mpp)
        edge = f"{preset.mpp[0] * preset.tile_px:g} µm"
        lines.append(f"| `{preset.key}` | {resolution} | {preset.tile_px} | {edge} | {preset.embed_dim:,} |")
    return "\n".join(lines)
