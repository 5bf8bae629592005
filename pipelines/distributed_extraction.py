"""Extraction over the nodes of a Ray cluster as a script. ``wsi-ncmi extract --engine ray`` does the same.

python pipelines/distributed_extraction.py SLIDES OUT [HOST:PORT] [a.b=value ...]

A cluster has to run (docs/how-to/scale.md says how); without HOST:PORT it is that of RAY_ADDRESS or of this
machine. All nodes see SLIDES, OUT and the weights under the same paths. The same command resumes
where it stopped.
"""

from pathlib import Path
from typing import Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, finish, guarded
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.workflows import JobResult, extract, load_config


def main(
    slides: Annotated[Path, typer.Argument(help="Folder of slides.")],
    out: Annotated[Path, typer.Argument(help="Output folder.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[HOST:PORT] [A.B=VALUE]...")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Extract the slides of a folder on a Ray cluster; the same command resumes where it was stopped.

    Example: python pipelines/distributed_extraction.py slides out 10.0.0.2:6379 encoder.name=uni_v2
    """
    address = [word for word in words or () if "=" not in word]
    overrides = [word for word in words or () if "=" in word]

    def run(progress: ProgressReporter) -> JobResult:
        cluster = {"extraction.engine": "ray", "extraction.ray_address": address[0] if address else None}
        return extract(load_config(None, overrides, {"slides": slides, "out": out, **cluster}), progress)

    finish(guarded(run, quiet=quiet, debug=debug), quiet=quiet, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
