"""``wsi-ncmi audit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, guarded

if TYPE_CHECKING:
    from wsi_ncmi.workflows.audit import AuditResult

NAME = "audit"

_MOST_SHOWN = 50


def command(
    splits: Annotated[Path, typer.Argument(help="splits.json, CLAM's splits (file or folder), or a CSV.")],
    labels: Annotated[str, typer.Option("--labels", help="CSV or ADAPTER:FILE.")],
    slides: Annotated[
        Path | None, typer.Option(help="slides.csv, or the folder of slides: finds copies and near-copies.")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Features: finds copies.")] = None,
    thumbnails: Annotated[Path | None, typer.Option(help="Folder of thumbnails: finds near-copies.")] = None,
    group: Annotated[str | None, typer.Option(help="slide_id: each slide is a patient.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Find what a split leaks between its parts; exit code 1 when it does.

    Example: wsi-ncmi audit splits.json --labels labels.csv --slides out/slides.csv
    """
    from wsi_ncmi.workflows.audit import audit

    result: AuditResult = guarded(
        lambda progress: audit(
            splits, labels, slides=slides, features=features, thumbnails=thumbnails, group=group,
            progress=progress,
        ),
        quiet=quiet, debug=debug,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        _print(result, quiet=quiet)
    raise typer.Exit(0 if result.passed else 1)


def _print(result: AuditResult, *, quiet: bool) -> None:
    rows = [("labels", str(finding.kind), finding.fatal, finding.detail) for finding in result.rows]
    rows += [("splits", str(finding.kind), finding.fatal, finding.detail) for finding in result.leaks]
    if quiet:
        rows = [row for row in rows if row[2]]
    rows.sort(key=lambda row: not row[2])
    for where, kind, fatal, detail in rows[:_MOST_SHOWN]:
        verdict = ("LEAK" if where == "splits" else "FAULT") if fatal else "note"
        typer.echo(f"{verdict:<7}{where:<8}{kind:<15}{detail}")
    if len(rows) > _MOST_SHOWN:
        typer.echo(f"… and {len(rows) - _MOST_SHOWN} more (all with --json)")
    if result.problem:
        typer.echo(f"FAULT  labels  {result.problem}")
    for note in () if quiet else result.notes:
        typer.echo(note)
    compared = ", ".join(f"{what} ({count})" for what, count in result.compared.items() if count)
    typer.echo(
        f"{result.folds} folds, {result.slides} slides of {result.patients} patients; compared by "
        f"{compared or 'slide id alone'}: {'no leak' if result.passed else 'NOT fit for training'}."
    )
