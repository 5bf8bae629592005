"""``wsi-ncmi audit-log``."""

from dataclasses import asdict
from typing import Annotated

import typer

from wsi_ncmi.cli.common import existing_path, say, say_json
from wsi_ncmi.cli.flags import PLAIN, Given
from wsi_ncmi.core.errors import counted

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def _verbs() -> None:
    """Check the audit trail of a watched folder."""


@app.command("verify")
@PLAIN.command
def verify_one(
    given: Given,
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder of the audit trail, such as OUT/audit-log.")
    ],
    head: Annotated[
        str,
        typer.Option(
            "--head", metavar="SHA256", help="Hash noted after an earlier check; must be in the chain."
        ),
    ] = "",
) -> None:
    """Follow the chain of hashes; exit code 1 names the first line where it is broken.

    Example: wsi-ncmi audit-log verify predictions/audit-log
    """
    from wsi_ncmi.service.audit_log import check_audit_log

    check = check_audit_log(existing_path(folder, "DIR"), head)
    if given.as_json:
        say_json(asdict(check))
    elif check.problem:
        say(f"BROKEN: {check.problem}. Entries before it, which are whole: {check.entries}.")
    elif not given.quiet:
        say(f"Whole: {check.entries} entries in {counted(check.files, 'file')}, head {check.head}.")
    raise typer.Exit(1 if check.problem else 0)
