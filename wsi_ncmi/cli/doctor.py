"""``wsi-ncmi doctor``."""

from dataclasses import asdict

import typer

from wsi_ncmi.cli.common import say, say_json
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FLAGS = ConfigFlags(
    "wsi_ncmi.doctor.finding.DoctorConfig",
    {"out": Flag(metavar="DIR"), "slides": Flag(metavar="DIR"), "probe_s": Flag(name="--probe-seconds")},
)


def command(given: Given) -> None:
    """Check this machine: readers, codecs, torch, GPUs, weights, limits, clock, disk; with the remedies.

    Example: wsi-ncmi doctor --json
    """
    from wsi_ncmi.doctor import examine

    findings = given.guarded(lambda _: examine(given.read()))
    if given.as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            if not given.quiet or finding.status != "ok":
                remedy = f" -> {finding.remedy}" if finding.remedy else ""
                say(f"{finding.status:4} {finding.name}: {finding.detail}{remedy}")
    raise typer.Exit(1 if any(finding.status == "fail" for finding in findings) else 0)
