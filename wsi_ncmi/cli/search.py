"""``wsi-ncmi search``."""

from __future__ import annotations

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given
from wsi_ncmi.cli.train import FEATURES, LOSS, MODEL, SHARED, run_name

FLAGS = ConfigFlags(
    "wsi_ncmi.training.search_space.SearchConfig",
    {
        "features": FEATURES,
        "space": Flag(there=True, metavar="FILE", help="YAML: 'key: {low, high, log}' or 'key: [choices]'."),
        "trials": Flag(panel="Training"),
        "minutes": Flag(panel="Training"),
        "trial_seeds": Flag(panel="Training"),
        "losses": LOSS,
        "model.name": MODEL,
        **{key: flag for key, flag in SHARED.items() if key not in ("overwrite", "allow_leak")},
    },
    one_of={"loss": "losses"},
)


def command(given: Given) -> None:
    """Search settings on each fold's inner validation part, then train and test the fold with the best.

    Example: wsi-ncmi search --features tcga_rcc.npz --loss ce --trials 30 --out search
    """
    config = given.read({"name": run_name(given)})
    from wsi_ncmi.workflows.search import search

    given.finish(search(config, given.progress))
