"""``wsi-ncmi clean``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows.result import JobResult

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

    def act(_: ProgressReporter) -> JobResult:
        config = given.read()
        from wsi_ncmi.workflows.clean import clean

        return clean(config)

    given.run(act)
