"""``wsi-ncmi pseudonymise``."""

from __future__ import annotations

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FLAGS = ConfigFlags(
    "wsi_ncmi.workflows.pseudonymise.PseudonymiseConfig",
    {
        "slides": Flag(argument=True, there=True),
        "out": Flag(argument=True, folder=True),
        "key": Flag(required=True, metavar="FILE"),
        "mapping": Flag(required=True, metavar="CSV"),
        "copy": Flag(),
        "new_key": Flag(),
    },
)


def command(given: Given) -> None:
    """Call slides by keyed names: links to them or bare copies, with the mapping kept apart.

    Example: wsi-ncmi pseudonymise slides named --key site.key --mapping private/mapping.csv
    """
    config = given.read()
    from wsi_ncmi.workflows.pseudonymise import pseudonymise

    given.finish(pseudonymise(config, given.progress))
