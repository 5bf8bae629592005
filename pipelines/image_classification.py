"""Image recognition: losses × seeds on CIFAR-10/100, arrays, image folders or WebDataset shards.

python pipelines/image_classification.py CONFIG [a.b=value ...] [--out OUT] [--minutes 30]
torchrun --nproc-per-node 8 pipelines/image_classification.py CONFIG ...
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from wsi_ncmi.cli.common import AsJson, Debug, Quiet, finish, guarded
from wsi_ncmi.core.config import read_config
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.vision import ImageJobConfig, run_images, text_table
from wsi_ncmi.workflows.config import find_config
from wsi_ncmi.workflows.result import JobResult


def main(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of one in configs/images/.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[A.B=VALUE]...")] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop and save after so many minutes.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace runs of another configuration.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
    as_json: AsJson = False,
) -> None:
    """Train every loss with every seed on one image set; the same command resumes where it was stopped.

    Example: python pipelines/image_classification.py cifar100_resnet18 data.path=cifar-100-python
    """

    def run(progress: ProgressReporter) -> JobResult:
        file = find_config(config, "images")
        job = read_config(ImageJobConfig, file, flags={"out": out}, overrides=settings or ())
        return JobResult(*run_images(job, progress, overwrite=overwrite, minutes=minutes))

    try:
        result = guarded(run, quiet=quiet, debug=debug)
        if os.environ.get("RANK", "0") == "0":
            show(result, quiet=quiet, as_json=as_json)
    except typer.Exit as ending:
        leave(ending.exit_code)
        raise
    leave(0)


def show(result: JobResult, *, quiet: bool, as_json: bool) -> None:
    """Prints the table and where the files are, and ends with the job's exit code."""
    if "summary" in result.files and not as_json:
        print(text_table(json.loads(result.files["summary"].read_text(encoding="utf-8"))))
    finish(result, quiet=quiet, as_json=as_json)


def leave(code: int) -> None:
    """Ends a process of ``torchrun`` at once: Gloo's threads can abort an interpreter that is taken down."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    typer.run(main)
