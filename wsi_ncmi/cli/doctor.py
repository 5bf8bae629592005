"""``wsi-ncmi doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, guarded

NAME = "doctor"


def command(
    out: Annotated[Path, typer.Option("--out", help="Folder whose disk is checked.")] = Path(),
    slides: Annotated[Path | None, typer.Option(help="Folder of slides that has to be readable.")] = None,
    probe_seconds: Annotated[
        float, typer.Option(min=0.0, help="Length of the throughput probe; 0 leaves it out.")
    ] = 5.0,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine: readers, codecs, torch, GPUs, weights, limits, clock, disk; with the remedies.

    Example: wsi-ncmi doctor --json
    """
    from wsi_ncmi.doctor import Request, examine

    request = Request(out=out, slides=slides, probe_s=probe_seconds)
    findings = guarded(lambda _: examine(request), quiet=quiet, debug=debug)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    else:
        for finding in findings:
            if not quiet or finding.status != "ok":
                remedy = f" -> {finding.remedy}" if finding.remedy else ""
                typer.echo(f"{finding.status:4} {finding.name}: {finding.detail}{remedy}")
    raise typer.Exit(1 if any(finding.status == "fail" for finding in findings) else 0)
