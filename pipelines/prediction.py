"""New slides to answers as a script. The verb ``wsi-ncmi predict`` does the same.

python pipelines/prediction.py SLIDES MODEL OUT

MODEL is a bundle of ``wsi-ncmi export`` or a run folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wsi_ncmi.core.progress import progress_for
from wsi_ncmi.workflows import JobResult, PredictionRequest, predict


def main(slides: str, model: str, out: str) -> JobResult:
    """Predicts the slides into ``out``."""
    return predict(PredictionRequest(Path(slides), Path(model), Path(out)), progress_for())


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    result = main(*sys.argv[1:])
    print(*(f"failed: {failure}" for failure in result.failures), sep="\n", file=sys.stderr)
    print(f"report: {result.files['report']}")
    sys.exit(result.exit_code)
