"""``wsi-ncmi compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given
from wsi_ncmi.cli.train import FEATURES, MODEL, SHARED, run_name

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

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


def command(
    given: Given,
) -> None:
    """Compare losses on the same folds, seeds and initial weights, with paired statistics.

    Example: wsi-ncmi compare --features tcga_rcc.npz --losses ncmi,ce --out compare --seeds 5
    """

    def act(progress: ProgressReporter) -> JobResult:
        config = given.read({"name": run_name(given)})
        from wsi_ncmi.workflows import train

        return train(config, progress)

    given.run(act)
