"""``wsi-ncmi verify``."""

from typing import Annotated

import typer

from wsi_ncmi.cli.common import named_path, say, say_json
from wsi_ncmi.cli.flags import PLAIN, Given

FLAGS = PLAIN


def command(
    given: Given,
    features: Annotated[
        str, typer.Argument(metavar="FEATURES", help="Folder of feature files, or an output folder.")
    ],
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Move bad files to quarantine/, so that extract makes them again."),
    ] = False,
) -> None:
    """Prove that every feature file is whole.

    Example: wsi-ncmi verify out/features/descriptor
    """
    from wsi_ncmi.features import verify_folder

    verdicts = verify_folder(named_path(features, "FEATURES"), repair=repair)
    bad = [verdict for verdict in verdicts if not verdict.ok]
    if given.as_json:
        rows = [
            {"file": v.path.name, "ok": v.ok, "problem": v.problem, "n_tiles": v.n_tiles} for v in verdicts
        ]
        say_json({"files": rows, "bad": len(bad)})
    else:
        for verdict in verdicts:
            if not verdict.ok:
                say(f"bad: {verdict.path.name}: {verdict.problem}")
            elif not given.quiet:
                say(f"ok: {verdict.path.name} ({verdict.n_tiles} tiles)")
        say(f"{len(verdicts) - len(bad)} files whole, {len(bad)} bad.")
    raise typer.Exit(1 if bad else 0)
