"""``benchmarks/peers``: what can rot without a peer installed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from benchmarks.peers import __main__ as command
from benchmarks.peers import data, locking, tables
from benchmarks.peers.catalogue import HERE, OURS, PEERS
from benchmarks.peers.data import dice, drawn
from benchmarks.peers.environments import Environment, MissingPeerError, make
from benchmarks.peers.measure import PARTS, FailedRunError, Part, Run, called, measure

SCRIPTS = {"reading", "extraction", "tissue", "training"}


def programs(script: str) -> set[str]:
    """Keys of ``PROGRAMS`` in a script, which can't be imported without a peer's packages."""
    tree = ast.parse((HERE / "scripts" / f"{script}.py").read_text("utf-8"))
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "PROGRAMS":
            return {key.value for key in node.value.keys}
    raise AssertionError(script)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_has_a_lock_with_hashes_and_no_address_and_a_script_for_each_part(name: str) -> None:
    peer = PEERS[name]
    lines = peer.lock_file.read_text("utf-8").splitlines()
    locked = {}
    for line in lines:
        requirement, *hashes = line.split(" ")
        assert hashes, line
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), line
        name_, version = requirement.split("==")
        locked[name_] = version
    asked = peer.lock_file.with_suffix(".in").read_text("utf-8").split()
    assert {Requirement(each).name.lower().replace("_", "-") for each in asked} <= set(locked)
    assert peer.package in locked or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", peer.source)
    assert set(peer.parts) <= set(PARTS)
    for part in SCRIPTS & set(peer.parts):
        assert name in programs(part), part
    assert bool(peer.command) == ("start" in peer.parts)


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_script_has_ours_and_no_program_that_nobody_names(script: str) -> None:
    assert programs(script) == {OURS} | {name for name, peer in PEERS.items() if script in peer.parts}


def test_every_lock_belongs_to_a_peer() -> None:
    kept = {path.stem for path in (HERE / "locks").iterdir()}
    assert kept == {peer.lock for peer in PEERS.values()}


def test_hashes_are_those_of_files_that_fit() -> None:
    def file(name: str, digit: str) -> dict[str, object]:
        return {"url": f"some/where/{name}", "hashes": {"sha256": digit * 64}}

    wheels = [
        file("a-1-cp311-cp311-manylinux_2_17_x86_64.whl", "1"),
        file("a-1-cp39-abi3-manylinux_2_28_x86_64.whl", "2"),
        file("a-1-cp312-cp312-manylinux_2_17_x86_64.whl", "3"),
        file("a-1-cp311-cp311-win_amd64.whl", "4"),
        file("a-1-cp311-cp311-manylinux_2_17_aarch64.whl", "5"),
    ]
    source = file("b-2.tar.gz", "6")
    packages = [
        {"name": "a", "version": "1", "wheels": wheels, "sdist": source},
        {"name": "b", "version": "2", "wheels": wheels[3:], "sdist": source},
    ]
    assert locking.lock_lines({"packages": packages}, "3.11") == [
        f"a==1 --hash=sha256:{'1' * 64} --hash=sha256:{'2' * 64}",
        f"b==2 --hash=sha256:{'6' * 64}",
    ]


def test_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("PEERS", raising=False)
    given = command.arguments([])
    assert (given.peers, given.parts, given.rounds) == (list(PEERS), list(PARTS), 3)
    monkeypatch.setenv("PEERS", "cucim pyvips")
    assert command.arguments(["--parts", "reading"]).peers == ["cucim", "pyvips"]
    assert command.arguments(["--peers", "clam"]).peers == ["clam"]
    monkeypatch.setenv("PEERS", "cucim no-such")
    with pytest.raises(SystemExit):
        command.arguments([])
    assert "no such peer: no-such" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.arguments(["--peers", "clam", "--rounds", "0"])


def sample(peer: str, turn: int, value: float, **more: object) -> dict[str, object]:
    return {
        "part": "tissue", "case": "mask and grid", "peer": peer, "version": "1", "round": str(turn), "value": value, **more,
    }  # fmt: skip


def test_a_cell_has_median_spread_and_the_lead_by_pairs() -> None:
    samples = [sample(OURS, turn, value, dice=0.9) for turn, value in enumerate((2.0, 4.0, 3.0))]
    samples += [sample("hs2p", turn, value, dice=0.8) for turn, value in enumerate((3.0, 4.0, 9.0))]
    samples += [sample("hs2p", 7, 100.0, dice=0.8)]  # a round without ours: no pair
    assert tables.lead(PARTS["tissue"], "mask and grid", "hs2p", samples) == pytest.approx(
        1.5
    )  # of 1.5, 1, 3
    more = replace(PARTS["tissue"], more=True)
    assert tables.lead(more, "mask and grid", "hs2p", samples) == pytest.approx(2 / 3)
    assert tables.lead(more, "mask and grid", "wsinfer", samples) is None
    assert tables.markdown(samples).splitlines() == [
        "| Tissue and grid of 20 drawn slides, CPU s (Dice) | mask and grid | with artefacts, thumbnail |",
        "|---|---|---|",
        "| wsi-ncmi 1 | **3** (2–4); Dice 0.900 | – |",
        "| hs2p 1 | 6.5 (3–100), 1.50×; Dice 0.800 | – |",
    ]


def test_a_case_that_was_not_run_is_a_dash_and_pixels_that_differ_are_said() -> None:
    samples = [
        sample("cucim", 0, 4353.0, max_difference=0.0),
        sample("fastslide", 0, 2312.0, max_difference=17.0),
    ]
    for each in samples:
        each |= {"part": "reading", "case": "aligned"}
    rows = tables.markdown(samples).splitlines()[2:]
    assert rows == [
        "| cuCIM 1 | **4,353** | – | – | – | – | – |",
        "| fastslide 1 | 2,312; ±17 | – | – | – | – | – |",
    ]


def test_dice_of_tiles_over_the_drawn_tissue(tmp_path: Path) -> None:
    from wsi_ncmi.synthesis import write_test_slide

    (tmp_path / "slides").mkdir()
    (tmp_path / "truth").mkdir()
    write_test_slide(tmp_path / "slides" / "one.svs", width_px=512, height_px=512)
    ring = [[0, 0], [255, 0], [255, 511], [0, 511]]
    feature = {"properties": {"classification": {"name": "tissue"}}, "geometry": {"coordinates": [ring]}}
    (tmp_path / "truth" / "one.geojson").write_text(json.dumps({"features": [feature]}))
    left, whole = [0, 0, 256, 512], [0, 0, 512, 512]
    assert dice({"one": [left]}, tmp_path) > 0.95
    assert dice({"one": [whole]}, tmp_path) == pytest.approx(2 / 3, abs=0.03)
    assert dice({}, tmp_path) == 0


def test_bags_are_drawn_once_and_ours_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsi_ncmi.cohorts import read_splits

    monkeypatch.setattr(data, "N_BAGS", 25)
    folder = drawn("training", tmp_path)
    before = (folder / "bags.npz").stat().st_mtime_ns
    assert drawn("training", tmp_path) == folder
    assert (folder / "bags.npz").stat().st_mtime_ns == before
    with np.load(folder / "bags.npz") as packed:
        assert packed["lengths"].sum() == len(packed["features"])
    fold = read_splits(folder / "splits.json").folds[0]
    assert {len(fold.train), len(fold.validation), len(fold.test)} == {16, 4, 5}
    assert sum(1 for _ in (folder / "clam/pt_files").iterdir()) == 25


def test_a_program_is_run_in_its_folder_and_its_failure_is_told(tmp_path: Path) -> None:
    environment = Environment(sys.executable, tmp_path, "1")
    run = Run(OURS, environment, tmp_path, "case")
    code = "import os; sum(range(3000000)); print('x'); print(os.getcwd(), os.environ['PYTHONPATH'])"
    used = called(["-c", code], run)
    assert used["last"] == f"{tmp_path} {tmp_path}"
    assert 0 < used["cpu"] < 60
    part = Part(
        "", "", ("case",), lambda run: {"value": called(["-c", "raise SystemExit('no disk')"], run)["cpu"]}
    )
    with pytest.raises(FailedRunError, match="no disk"):
        measure(part, run)
    assert not run.out.exists()


def test_a_checkout_is_taken_at_its_commit_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        told = [
            "git",
            "-C",
            str(tmp_path / "from/some/name"),
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            *words,
        ]
        return subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "from/some/name").mkdir(parents=True)
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "first")
    commit = git("rev-parse", "HEAD")
    git("commit", "--quiet", "--allow-empty", "-m", "second")
    monkeypatch.setitem(PEERS, "clam", replace(PEERS["clam"], source=f"some/name@{commit}"))
    work = tmp_path / "work"
    (work / "environments/clam").mkdir(parents=True)
    (work / "environments/clam/.made").touch()
    with pytest.raises(MissingPeerError, match="PEERS_GIT"):
        make("clam", work, "", sys.executable)
    with pytest.raises(MissingPeerError, match="git clone"):
        make("clam", work, str(tmp_path / "nowhere"), sys.executable)
    environment = make("clam", work, str(tmp_path / "from"), sys.executable)
    assert environment.version == commit[:7]
    head = ["git", "-C", str(environment.folder), "rev-parse", "HEAD"]
    assert subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip() == commit
