"""``wsi-ncmi clean``."""

from __future__ import annotations

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FLAGS = ConfigFlags(
    "wsi_ncmi.workflows.clean.CleanConfig",
    {
        "out": Flag(argument=True, there=True),
        "kinds": Flag(
            name="--kind",
            help="temporary,quarantine,history; only when named: features,predictions,logs.",
        ),
        "older_than": Flag(metavar="DAYS", help="Days since the last change, at least 1 (30)."),
        "yes": Flag(help="Remove it; without, it is only said what would go."),
    },
)


def command(given: Given) -> None:
    """Remove old temporary files and earlier predictions from an output folder; says first what would go.

    Example: wsi-ncmi clean predictions --kind history --older-than 90
    """
    config = given.read()
    from wsi_ncmi.workflows.clean import clean

    given.finish(clean(config))
