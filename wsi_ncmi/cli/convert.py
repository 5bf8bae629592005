"""``wsi-ncmi convert``."""

from __future__ import annotations

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

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
    from wsi_ncmi.workflows.convert import convert

    given.finish(convert(given.read(), given.progress))
