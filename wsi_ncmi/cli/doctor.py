"""``wsi-ncmi doctor``."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from wsi_ncmi.cli.common import say, say_json
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given
from wsi_ncmi.core.heartbeat import FILE_VARIABLE, state

FLAGS = ConfigFlags(
    "wsi_ncmi.doctor.finding.DoctorConfig",
    {
        "out": Flag(metavar="DIR"),
        "slides": Flag(metavar="DIR"),
        "probe_s": Flag(name="--probe-seconds"),
        "gpu": Flag(),
    },
)


def command(
    given: Given,
    heartbeat: Annotated[
        str | None,
        typer.Option(
            "--heartbeat", metavar="FILE", help="Only whether the job that touches this file gets on."
        ),
    ] = None,
) -> None:
    """Check this machine: readers, codecs, torch, GPUs, weights, limits, clock, disk; with the remedies.

    Example: wsi-ncmi doctor --json
    """
    if heartbeat is not None:
        alive, sentence = state({**os.environ, FILE_VARIABLE: heartbeat})
        say_json({"alive": alive, "detail": sentence}) if given.as_json else say(sentence)
        raise typer.Exit(0 if alive else 1)
    from wsi_ncmi.doctor import examine

    findings = examine(given.read())
    if given.as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            if not given.quiet or finding.status != "ok":
                remedy = f" -> {finding.remedy}" if finding.remedy else ""
                say(f"{finding.status:4} {finding.name}: {finding.detail}{remedy}")
    raise typer.Exit(1 if any(finding.status == "fail" for finding in findings) else 0)
