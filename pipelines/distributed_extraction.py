"""Extraction over the nodes of a Ray cluster as a script. ``wsi-ncmi extract --engine ray`` does the same.

python pipelines/distributed_extraction.py SLIDES OUT [HOST:PORT] [a.b=value ...]

A cluster has to run (docs/scale.md says how); without HOST:PORT it is that of RAY_ADDRESS or of this machine.
All nodes see SLIDES, OUT and the weights under the same paths. Started again, it goes on where it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wsi_ncmi.jobs import ExtractionRequest, JobResult, extract, load_config
from wsi_ncmi.progress import progress_for


def main(arguments: list[str]) -> JobResult:
    """Extracts the slides of a folder; further arguments change the configuration."""
    slides, out, *rest = arguments
    address = [word for word in rest if "=" not in word]
    overrides = [word for word in rest if "=" in word]
    config = load_config(
        None, overrides, {"extraction": {"engine": "ray", "ray_address": address[0] if address else None}}
    )
    return extract(ExtractionRequest.of_config(config, Path(slides), Path(out)), progress_for())


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    result = main(sys.argv[1:])
    print(*result.notes, sep="\n")
    print(*(f"failed: {failure}" for failure in result.failures), sep="\n", file=sys.stderr)
    sys.exit(result.exit_code)
