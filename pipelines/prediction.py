"""Predictions for new slides as a script. The verb ``wsi-ncmi predict`` does the same.

python pipelines/prediction.py SLIDES MODEL OUT

MODEL is a bundle of ``wsi-ncmi export`` or a run folder.
"""

import sys
from pathlib import Path

from wsi_ncmi.core.progress import progress_for
from wsi_ncmi.prediction import PredictConfig
from wsi_ncmi.workflows import JobResult
from wsi_ncmi.workflows.predict import predict


def main(slides: str, model: str, out: str) -> JobResult:
    """Predicts the slides into ``out``."""
    return predict(PredictConfig(slides=Path(slides), model=Path(model), out=Path(out)), progress_for())


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    result = main(*sys.argv[1:])
    print(*(f"failed: {failure}" for failure in result.failures), sep="\n", file=sys.stderr)
    print(f"report: {result.files['report']}")
    sys.exit(result.exit_code)
