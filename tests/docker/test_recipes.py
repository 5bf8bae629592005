"""What the recipes of the images, the compose file and the cluster templates promise, as far as text can tell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from wsi_ncmi.extraction.ledger import read_ledger
from wsi_ncmi.features import verify_folder

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
RECIPES = {"gpu": DOCKER / "Dockerfile", "cpu": DOCKER / "Dockerfile.cpu"}


def stages(kind: str) -> list[str]:
    return re.split(r"(?m)^(?=FROM )", RECIPES[kind].read_text())[1:]


def test_both_images_share_their_largest_layers() -> None:
    gpu, cpu = stages("gpu"), stages("cpu")
    assert gpu[0].splitlines()[0] == "FROM ${BASE} AS locked"
    assert instructions(gpu[0]) == instructions(cpu[0])
    assert instructions(gpu[1]) == instructions(cpu[2])


def instructions(stage: str) -> list[str]:
    return [line for line in stage.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("kind", RECIPES)
def test_a_job_is_nobodys_shell_and_nobodys_root(kind: str) -> None:
    last = stages(kind)[-1]
    assert "USER 10001:10001" in last
    assert 'ENTRYPOINT ["tini", "--", "wsi-ncmi"]' in last
    assert '"python3", "-m", "wsi_ncmi.core.heartbeat"' in last
    assert "HF_HUB_OFFLINE=1" in last
    assert "org.opencontainers.image.licenses" in last
    assert all(
        name in ("${BASE}", "locked") for name in re.findall(r"(?m)^FROM (\S+)", RECIPES[kind].read_text())
    )


def test_what_is_copied_reaches_the_builder() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for kind in RECIPES:
        for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", RECIPES[kind].read_text()):
            copied |= {word.removeprefix("./") for word in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def services() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"])


@pytest.mark.parametrize("name", ["extract", "cpu"])
def test_a_service_is_shut_in(name: str) -> None:
    service = services()[name]
    assert service["network_mode"] == "none"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert {"cpus", "mem_limit", "shm_size", "pids_limit", "tmpfs"} <= set(service)
    mounts = dict(mount.rsplit("}:", 1)[1].partition(":")[::2] for mount in service["volumes"])
    assert mounts == {"/slides": "ro", "/weights": "ro", "/out": ""}
    assert "ports" not in service


def test_the_gpu_is_reserved_for_the_one_that_needs_it() -> None:
    devices = services()["extract"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["driver"] == "nvidia"
    assert devices[0]["capabilities"] == ["gpu"]
    assert "deploy" not in services()["cpu"]


def test_the_apptainer_image_runs_the_same_program() -> None:
    text = (DOCKER / "wsi-ncmi.def").read_text()
    assert "Bootstrap: docker-archive" in text
    assert re.search(r'%runscript\n\s+exec wsi-ncmi "\$@"', text)
    path = re.search(r"PATH=(\S+?):", RECIPES["gpu"].read_text())
    assert path is not None
    assert f"PATH={path[1]}:" in text


def test_hadolint_is_content() -> None:
    tool = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if tool is None:
        pytest.skip("hadolint is not installed")
    ended = subprocess.run([tool, *RECIPES.values()], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def test_the_array_of_the_template_makes_one_job(tmp_path: Path) -> None:
    """As Slurm runs it, but for Slurm: the inventory, two parts, and the task that closes."""
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    for number in range(3):
        pixels = np.full((512, 512, 3), 243, np.uint8)
        pixels[64:320, 64:320] = np.random.default_rng(number).integers(90, 200, (256, 256, 3))
        with tifffile.TiffWriter(slides / f"s{number}.tif") as writer:
            writer.write(
                pixels, tile=(256, 256), photometric="rgb", compression="deflate", resolution=(20_000, 20_000),
                resolutionunit="CENTIMETER", metadata=None,
            )  # fmt: skip
    program = tmp_path / "bin" / "wsi-ncmi"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m wsi_ncmi "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "SLIDES": str(slides), "OUT": str(out),
        "PYTHONPATH": str(ROOT), "FLAGS": "--workers 1",
    }  # fmt: skip
    out.mkdir()
    subprocess.run([program, "inventory", slides, "--out", out / "slides.csv"], check=True, env=environment)
    for number, count in ((1, 2), (2, 2), (0, 1)):
        task = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": str(count)}
        ended = subprocess.run(
            ["bash", ROOT / "pipelines" / "slurm_extraction.sbatch"], env={**environment, **task},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
    assert [row.status for row in read_ledger(out / "ledger_1_of_2.csv")] == ["done", "done"]
    assert [row.status for row in read_ledger(out / "ledger_2_of_2.csv")] == ["done"]
    assert [row.slide_id for row in read_ledger(out / "ledger.csv")] == ["s0", "s1", "s2"]
    assert len(verify_folder(out)) == 3
    assert all(verdict.ok for verdict in verify_folder(out))
