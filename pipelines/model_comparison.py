"""Models (and encoders, losses) crossed, as a script. The verb ``wsi-ncmi grid`` does the same.

    python pipelines/model_comparison.py OUT MODEL,MODEL,... [NAME=]FEATURES[+FEATURES] ... [--set a.b=value]

FEATURES carry their labels (a packed .npz), or add ``--set labels=FILE.csv``. Same folds, seeds and losses
for all; the same command resumes where it was stopped.
"""

import argparse
import sys
from pathlib import Path

from wsi_ncmi.core.config import read_config
from wsi_ncmi.core.progress import progress_for
from wsi_ncmi.training import SweepConfig
from wsi_ncmi.workflows import JobResult
from wsi_ncmi.workflows.sweep import named_features, settings_of_models, sweep


def main(arguments: list[str]) -> JobResult:
    """Trains the grid."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("models", type=lambda text: text.split(","))
    parser.add_argument("features", nargs="+")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", dest="overrides")
    given = parser.parse_args(arguments)
    values = {
        "losses": ["ce"], "seeds": 3, "name": "Models compared", "out": given.out, "models": given.models,
        "encoders": named_features(given.features),
    }  # fmt: skip
    overrides = settings_of_models(given.models, given.overrides)
    config = read_config(SweepConfig, flags=values, overrides=overrides, one_of={"loss": "losses"})
    return sweep(config, progress_for())


if __name__ == "__main__":
    result = main(sys.argv[1:])
    print(*(f"failed: {failure}" for failure in result.failures), sep="\n", file=sys.stderr)
    print(result.files["overview"].read_text(encoding="utf-8"))
    sys.exit(result.exit_code)
