"""``wsi-ncmi split``."""

from __future__ import annotations

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given

FLAGS = ConfigFlags(
    "wsi_ncmi.training.config.TrainConfig",
    {
        "labels": Flag(
            argument=True,
            metavar="LABELS",
            help="CSV, or ADAPTER:FILE such as camelyon17:stage_labels.csv.",
        ),
        "out": Flag(required=True, metavar="FILE", help="Splits file (JSON) to write."),
        "official_split": Flag(name="--official"),
        "split.*": Flag(),
    },
)


def command(given: Given) -> None:
    """Make patient-safe folds.

    Example: wsi-ncmi split labels.csv --out splits.json --folds 5 --stratify label,centre
    """
    from wsi_ncmi.workflows.split import split

    given.finish(split(given.read()))
