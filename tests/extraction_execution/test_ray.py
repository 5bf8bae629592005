"""A real cluster of two nodes that loses a worker and a node, and what is said where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app

ROOT = Path(__file__).resolve().parents[2]


def test_without_ray_one_sentence_says_so(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(
        app, ["extract", str(slides), "--out", str(tmp_path / "out"), "--engine", "ray"]
    )
    assert result.exit_code == 2
    assert 'pip install "wsi-ncmi[ray]"' in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("by_script", [False, True], ids=["verb", "script"])
def test_without_a_cluster_none_is_started(slides: Path, tmp_path: Path, by_script: bool) -> None:
    pytest.importorskip("ray")
    address, out = "127.0.0.9:6398", tmp_path / "out"
    verb = ["-m", "wsi_ncmi", "extract", slides, "--out", out, "--engine", "ray", "--ray-address", address]
    script = [ROOT / "pipelines" / "distributed_extraction.py", slides, out, address]
    ended = subprocess.run(
        [sys.executable, *(script if by_script else verb)], capture_output=True, text=True, check=False,
        env=_environment(),
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert f"no Ray cluster to be reached at '{address}'" in ended.stderr
    assert "ray start --head" in ended.stderr
    assert not out.exists()


def test_a_lost_worker_and_a_lost_node_cost_no_slide(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A small one of ``benchmarks/ray_engine.py``: every slide once, all files whole, bytes of a local run."""
    pytest.importorskip("ray")
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "ray_engine.py", "kills", "--slides", "8", "--tissue-px", "768",
         "--folder", "/tmp", "--brief", "--script", "--json"],
        capture_output=True, text=True, check=False, env=_environment(),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert result["rows"] == 8
    assert result["worker_killed_after"] < 8
    assert result["node_killed_after"] < 8


def _environment() -> dict[str, str]:
    import os

    # A path of its own: Ray's sockets lie below it, and their names may not be long.
    return {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
