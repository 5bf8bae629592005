"""The demo as a script: a synthetic cohort and the whole job on it. The verb ``wsi-ncmi demo`` does the same.

python pipelines/demo.py OUT [a.b=value ...]
"""

import sys
from pathlib import Path

from wsi_ncmi.core.progress import progress_for
from wsi_ncmi.workflows import JobResult, run_demo


def main(arguments: list[str]) -> JobResult:
    """Runs the demo into the folder named first; further arguments change the configuration."""
    out, *overrides = arguments or ["demo"]
    return run_demo(Path(out), progress_for(), overrides=tuple(overrides))


if __name__ == "__main__":
    result = main(sys.argv[1:])
    print(f"report: {result.files['report']}")
    sys.exit(result.exit_code)
