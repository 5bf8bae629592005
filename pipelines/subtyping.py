"""The whole job as a script: slides and labels to the report. The verb ``wsi-ncmi run`` does the same.

python pipelines/subtyping.py CONFIG [a.b=value ...]
"""

import sys

from wsi_ncmi.core.progress import progress_for
from wsi_ncmi.workflows import JobResult, load_config, run_job


def main(arguments: list[str]) -> JobResult:
    """Runs the configuration named first; further arguments change it."""
    name, *overrides = arguments
    return run_job(load_config(name, overrides), progress_for())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    result = main(sys.argv[1:])
    print(*(f"failed: {failure}" for failure in result.failures), sep="\n", file=sys.stderr)
    print(f"report: {result.files['report']}")
    sys.exit(result.exit_code)
