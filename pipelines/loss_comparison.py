"""Losses on the same folds, seeds and initial weights.

    python pipelines/loss_comparison.py FEATURES OUT [a.b=value ...]

The same as ``wsi-ncmi compare``. FEATURES carries its labels (a packed .npz), or add ``labels=FILE.csv``.
"""

import sys

from wsi_ncmi.core.config import read_config
from wsi_ncmi.core.progress import progress_for
from wsi_ncmi.training import TrainConfig
from wsi_ncmi.workflows import JobResult, train

LOSSES = ["ncmi", "ce", "weighted_ce"]


def main(arguments: list[str]) -> JobResult:
    """Compares the losses on the features named first, into the folder named second."""
    features, out, *overrides = arguments
    values = {"features": features, "losses": LOSSES, "seeds": 5, "name": "Losses compared", "out": out}
    config = read_config(TrainConfig, flags=values, overrides=overrides, one_of={"loss": "losses"})
    return train(config, progress_for())


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    result = main(sys.argv[1:])
    print(result.files["differences"].read_text(encoding="utf-8"))
    print(f"report: {result.files['report']}")
    sys.exit(result.exit_code)
