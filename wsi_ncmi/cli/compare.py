"""``wsi-ncmi compare``."""

from __future__ import annotations

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given
from wsi_ncmi.cli.train import FEATURES, MODEL, SHARED, run_name

FLAGS = ConfigFlags(
    "wsi_ncmi.training.config.TrainConfig",
    {
        "features": FEATURES,
        "losses": Flag(
            panel="Training",
            default=("ncmi", "ce"),
            help="Losses; the first is compared with each other one.",
        ),
        "model.name": MODEL,
        **SHARED,
        "seeds": Flag(panel="Training", default=5),
    },
    one_of={"loss": "losses"},
)


def command(given: Given) -> None:
    """Compare losses on the same folds, seeds and initial weights, with paired statistics.

    Example: wsi-ncmi compare --features tcga_rcc.npz --losses ncmi,ce --out compare --seeds 5
    """
    config = given.read({"name": run_name(given)})
    from wsi_ncmi.workflows import train

    given.finish(train(config, given.progress))
