"""``wsi-ncmi audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from wsi_ncmi.cli.common import say, say_json
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

if TYPE_CHECKING:
    from wsi_ncmi.workflows.audit import AuditResult


_MAX_SHOWN = 10

FLAGS = ConfigFlags(
    "wsi_ncmi.workflows.audit.AuditConfig",
    {
        "splits": Flag(
            argument=True, there=True, help="splits.json, CLAM's splits (file or folder), or a CSV."
        ),
        "labels": Flag(required=True, there=True, metavar="CSV|ADAPTER:FILE"),
        "slides": Flag(there=True),
        "features": Flag(there=True),
        "thumbnails": Flag(there=True, metavar="DIR"),
        "group": Flag(),
    },
)


def command(given: Given) -> None:
    """Find what a split leaks between its parts; exit code 1 when it does.

    Example: wsi-ncmi audit splits.json --labels labels.csv --slides out/slides.csv
    """
    from wsi_ncmi.workflows.audit import audit

    result = audit(given.read(), given.progress)
    if given.as_json:
        say_json(result.to_json())
    else:
        _print(result, quiet=given.quiet)
    raise typer.Exit(0 if result.passed else 1)


def _print(result: AuditResult, *, quiet: bool) -> None:
    rows = [("labels", str(finding.kind), finding.fatal, finding.detail) for finding in result.rows]
    rows += [("splits", str(finding.kind), finding.fatal, finding.detail) for finding in result.leaks]
    if quiet:
        rows = [row for row in rows if row[2]]
    rows.sort(key=lambda row: not row[2])
    for where, kind, fatal, detail in rows[:_MAX_SHOWN]:
        verdict = ("LEAK" if where == "splits" else "FAULT") if fatal else "note"
        say(f"{verdict:<7}{where:<8}{kind:<15}{detail}")
    if len(rows) > _MAX_SHOWN:
        say(f"… and {len(rows) - _MAX_SHOWN} more (all with --json).")
    if result.problem:
        say(f"FAULT  labels  {result.problem}")
    for note in () if quiet else result.notes:
        say(note)
    compared = ", ".join(f"{what} ({count})" for what, count in result.compared.items() if count)
    say(
        f"{result.folds} folds, {result.slides} slides of {result.patients} patients; compared by "
        f"{compared or 'slide id alone'}: {'no leak' if result.passed else 'NOT fit for training'}."
    )
