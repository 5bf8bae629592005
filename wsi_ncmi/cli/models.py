"""``wsi-ncmi models``: aggregators, imported checkpoints, and the bundles of a folder."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsi_ncmi.cli.common import existing_path, named_path, say, say_json
from wsi_ncmi.cli.flags import PLAIN, Given

if TYPE_CHECKING:
    from pathlib import Path

    from wsi_ncmi.prediction import ModelBundle
    from wsi_ncmi.workflows.result import JobResult

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
@PLAIN.command
def list_all(
    given: Given,
    context: typer.Context,
    in_features: Annotated[
        int, typer.Option("--in-features", metavar="INTEGER", min=1, help="Width of the instance features.")
    ] = 1024,
    classes: Annotated[
        int, typer.Option("--classes", metavar="INTEGER", min=2, help="Number of classes.")
    ] = 2,
    instances: Annotated[
        int, typer.Option("--instances", metavar="INTEGER", min=1, help="Instances of the measured bag.")
    ] = 1024,
) -> None:
    """List the aggregators with paper, parameters and cost, measured with their default settings.

    Example: wsi-ncmi models --in-features 1536
    """
    if context.invoked_subcommand is not None:
        return
    rows = _rows(in_features, classes, instances, costed=given.as_json or not given.quiet)
    if given.as_json:
        say_json(rows)
        return
    for row in rows:
        if given.quiet:
            say(row["name"])
            continue
        size, flops = row["parameters"] / 1e6, row["flops_per_instance"] / 1e6
        cost = f"{size:.2f} M parameters, {flops:.2f} MFLOP/instance"
        say(f"{row['name']:<12} {cost:<44} {row['paper']}")
        say(f"{'':<12} {row['summary']}; attention: {row['attention']}")


@app.command("import")
@PLAIN.command
def import_one(
    given: Given,
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Checkpoint of CLAM, DSMIL or TransMIL.")
    ],
    class_names: Annotated[
        str,
        typer.Option(
            "--class-names", metavar="A,B,…", help="Names of its outputs, in their order, by commas."
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Folder for the model; predict takes it as --model.")
    ],
) -> None:
    """Import a checkpoint of another codebase, strictly.

    Example: wsi-ncmi models import s_0_checkpoint.pt --class-names normal,tumor --out clam
    """
    file, folder = existing_path(checkpoint, "CHECKPOINT"), named_path(out, "--out")
    from wsi_ncmi.workflows.model_import import import_model

    given.finish(import_model(file, [name.strip() for name in class_names.split(",")], folder))


_Folder = Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of the bundles.")]


@app.command("promote")
@PLAIN.command
def promote_one(
    given: Given,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="The bundle, in the folder of the others.")],
) -> None:
    """Make a bundle the current one of its folder, for predict --model FOLDER/current.

    Example: wsi-ncmi models promote models/subtypes-2.1.zip
    """
    path = existing_path(bundle, "BUNDLE")
    from wsi_ncmi.prediction.model_folder import promote_bundle

    given.finish(_now_current(path.parent, promote_bundle(path)))


@app.command("rollback")
@PLAIN.command
def roll_back(given: Given, folder: _Folder) -> None:
    """Make the bundle current that was so before.

    Example: wsi-ncmi models rollback models
    """
    path = existing_path(folder, "FOLDER")
    from wsi_ncmi.prediction.model_folder import rollback

    given.finish(_now_current(path, rollback(path)))


@app.command("list")
@PLAIN.command
def list_folder(given: Given, folder: _Folder) -> None:
    """List the bundles of a folder, each loaded once (the aggregators: wsi-ncmi models).

    Example: wsi-ncmi models list models
    """
    path = existing_path(folder, "FOLDER")
    from wsi_ncmi.prediction.model_folder import list_bundles

    rows = list(list_bundles(path))
    if given.as_json:
        say_json(rows)
    for row in () if given.as_json else rows:
        mark = "current" if row["current"] else ""
        if row["problem"]:
            say(f"{mark:<8}{row['file']}: PROBLEM {row['problem']}")
            continue
        name = f"{row['name']} {row['version']}".rstrip()
        since = f", promoted {row['promoted']}" if row["promoted"] else ""
        say(
            f"{mark:<8}{row['file']}: {name}, digest {row['digest'][:12]}, {', '.join(row['classes'])}{since}"
        )
    raise typer.Exit(1 if any(row["problem"] for row in rows) else 0)


def _now_current(folder: Path, bundle: ModelBundle) -> JobResult:
    from wsi_ncmi.prediction.model_folder import CURRENT, HISTORY, current_name
    from wsi_ncmi.workflows.result import JobResult

    note = f"{current_name(folder)} is current: {bundle.title}, digest {bundle.digest[:12]}."
    return JobResult({CURRENT: folder / CURRENT, "history": folder / HISTORY}, notes=(note,))


def _rows(in_features: int, classes: int, instances: int, *, costed: bool) -> list[dict[str, Any]]:
    from wsi_ncmi.mil import list_models, measure_model, model_config

    rows = []
    for info in list_models():
        row: dict[str, Any] = {
            "name": info.name,
            "paper": info.paper,
            "summary": info.summary,
            "attention": info.reported_attention,
            "needs_classes": info.needs_classes,
            "ordered": info.ordered,
            "full_attention": info.full_attention,
            "settings": [field.name for field in fields(info) if field.name != "name"],
        }
        if costed:
            row |= asdict(measure_model(model_config(name=info.name), in_features, classes, instances))
            row |= {"in_features": in_features, "classes": classes}
        rows.append(row)
    return rows
