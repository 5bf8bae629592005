"""``wsi-ncmi convert``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows.result import JobResult

FLAGS = ConfigFlags(
    "wsi_ncmi.workflows.convert.ConvertConfig",
    {
        "features": Flag(argument=True, there=True),
        "to": Flag(required=True),
        "out": Flag(required=True, folder=True),
        "*": Flag(),
    },
)


def command(given: Given) -> None:
    """Write features in another tool's format, or bring another tool's features here.

    Example: wsi-ncmi convert out/features/uni_v1 --to clam --out clam/
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows.convert import convert

        return convert(given.read(), progress)

    given.run(act)
