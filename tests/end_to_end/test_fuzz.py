"""A small run of ``benchmarks/fuzz.py``, and proof that its judges find faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsi_ncmi.core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from fuzz_kinds.bases import Base, make_bases  # noqa: E402
from fuzz_kinds.harness import in_children  # noqa: E402
from fuzz_kinds.slides import objection  # noqa: E402


# The first five slides are TIFF files and go through one job.
@pytest.mark.parametrize(
    ("kinds", "count"), [(("slides",), 5), (("features", "bundles", "tables", "documents"), 25)]
)
def test_damaged_input_of_every_kind_is_read_as_before_refused_or_valid(
    kinds: tuple[str, ...], count: int
) -> None:
    # Without real data: slides are drawn, and there are no DICOM slides.
    environment = {name: value for name, value in os.environ.items() if name != "WSI_NCMI_TEST_DATA"}
    ended = subprocess.run(
        [sys.executable, "benchmarks/fuzz.py", "--kind", *kinds, "--count", str(count), "--seed", "1", "--json"],
        capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["inputs"] == count
    assert found["outcomes"]["refused"] > count // 3


def misbehave(how: str) -> tuple[str, str]:
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hangs":
        time.sleep(60)
    if how == "stumbles":
        raise AttributeError("'NoneType' object has no attribute 'x'")
    if how == "complains":
        raise InputError("The file is damaged; copy it again.")
    if how == "mumbles":
        raise InputError("x.csv can't be read (KeyError: 'a').")
    return how, ""


def test_what_ends_or_holds_up_the_child_costs_itself_alone() -> None:
    hows = ["same", "dies", "same", "hangs", "stumbles", "mumbles", "complains", "silent"]
    found = [outcome for outcome, _ in in_children(hows, misbehave, limit_s=0.5)]
    assert found == ["same", "crash", "same", "hang", "crash", "unclear", "refused", "silent"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    return {base.name: base for base in make_bases(tmp_path_factory.mktemp("bases"), None)}


@pytest.mark.parametrize("name", ["svs_jpeg", "svs_j2k", "bigtiff", "subifds"])
def test_the_reference_objects_to_damage_and_takes_what_is_valid(
    tmp_path: Path, bases: dict[str, Base], name: str
) -> None:
    base = bases[name]
    sound, path = base.path.read_bytes(), tmp_path / base.path.name
    path.write_bytes(sound)
    assert objection(base, path, []) == "the reference reads what it read before"
    start, size = base.regions["data"][10]
    path.write_bytes(sound[:start] + bytes(size) + sound[start + size :])
    assert "refuses 1 tile" in objection(base, path, [])
    assert "reads what it read" in objection(base, path, [(0, 0)])
    swapped = bytearray(sound)
    for start, size in base.regions["table"][:2]:  # offsets and sizes of the first level
        entry = size // 36
        table = bytes(swapped[start : start + size])
        swapped[start + entry : start + 2 * entry] = table[-entry:]
        swapped[start + size - entry : start + size] = table[entry : 2 * entry]
    path.write_bytes(swapped)
    assert objection(base, path, [(128, 0)]) == ""
