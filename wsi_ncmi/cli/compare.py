"""``wsi-ncmi compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, Settings, run_verb
from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given
from wsi_ncmi.cli.train import FEATURES, MODEL, SHARED, run_name

if TYPE_CHECKING:
    from wsi_ncmi.core.progress import ProgressReporter
    from wsi_ncmi.workflows import JobResult

NAME = "compare"

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
    setting: Settings = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Compare losses on the same folds, seeds and initial weights, with paired statistics.

    Example: wsi-ncmi compare --features tcga_rcc.npz --losses ncmi,ce --out compare --seeds 5
    """

    def act(progress: ProgressReporter) -> JobResult:
        from wsi_ncmi.workflows import train

        return train(given.read(setting, {"name": run_name(given)}), progress)

    run_verb(act, quiet=quiet, debug=debug, as_json=as_json)
