"""``benchmarks/gpu.py`` in small on the CPU: every part measures, resumes, and leaves its faults on record."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import gpu
from benchmarks.gpu_parts import cifar, encoding, losses, mil, paths, record
from benchmarks.gpu_parts.record import BROKEN_DEVICE, NotHereError, Record

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def cells(path: Path) -> dict[str, dict[str, object]]:
    return json.loads(path.read_text("utf-8"))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_cells_are_kept_and_a_fault_does_not_stop_the_others(tmp_path: Path) -> None:
    calls = []

    def fine() -> dict[str, float]:
        calls.append(1)
        return {"rate": 1 / 3, "none": float("nan")}

    def broken() -> dict[str, float]:
        raise ValueError("no\nsuch thing")

    def missing() -> dict[str, float]:
        raise NotHereError("give it")

    for _ in range(2):  # the second time nothing that has figures is measured again
        kept = Record(tmp_path / "part.json")
        kept.measure("fine", fine)
        assert kept.measure("broken", broken) is None
        assert kept.measure("missing", missing) is None
        late = Record(tmp_path / "part.json", time.monotonic() + 5)
        assert late.measure("long", fine, needs_s=6) is None
        assert late.measure("fine", fine) == {"rate": 0.33333, "none": None}
    assert len(calls) == 1
    found = cells(tmp_path / "part.json")
    assert found["broken"]["error"] == "ValueError: no such thing"
    assert "def broken" not in str(found["broken"]["traceback"])
    assert "raise ValueError" in str(found["broken"]["traceback"])
    assert (found["missing"], found["long"]) == ({"left_out": "give it"}, {"left_out": "no time was left"})


def test_a_cell_in_which_the_process_ended_has_had_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    path.write_text(json.dumps({"deadly": {"begun": True}, "failed": {"error": "x", "traceback": ""}}))
    kept = Record(path, again=True)
    assert kept.measure("deadly", lambda: {"a": 1}) is None
    assert kept.measure("failed", lambda: {"a": 1}) is None
    assert "the process ended" in str(cells(path)["deadly"]["error"])
    # The next call tries both again.
    kept = Record(path)
    assert (
        kept.measure("deadly", lambda: {"a": 1}) == kept.measure("failed", lambda: {"a": 2 - 1}) == {"a": 1}
    )


def test_a_part_that_once_could_not_begin_is_no_fault_for_good(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    path.write_text(json.dumps({"part": {"error": "ImportError: no module", "traceback": ""}}))
    Record(path).measure("fine", lambda: {"a": 1})
    assert list(cells(path)) == ["fine"]


def test_an_unusable_device_ends_the_part_for_a_new_process(tmp_path: Path) -> None:
    def broken() -> dict[str, float]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(SystemExit) as ended:
        Record(tmp_path / "part.json").measure("cell", broken)
    assert ended.value.code == BROKEN_DEVICE


def test_a_device_is_not_given_more_than_fits_in_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel of 20 ms is ordered in no time; as many as the queue takes would run for 20 s."""
    clock, ordered, largest = [0.0], [0], [0]

    def wait(_: object) -> float:
        clock[0] += 0.02 * ordered[0]
        largest[0], ordered[0] = max(largest[0], ordered[0]), 0
        return clock[0]

    def step() -> int:
        ordered[0] += 1
        return 3

    monkeypatch.setattr(record, "synchronise", wait)
    assert record.rate_of(step, CPU, 0.5) == pytest.approx(150)
    assert 0.5 <= clock[0] < 0.6
    assert largest[0] <= 25


def test_a_loader_has_the_processes_that_shared_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "available_cores", lambda: 4)
    assert encoding._loader_processes(10, 1000) == 4
    assert encoding._loader_processes(10, 65) == 2
    with pytest.raises(NotHereError, match=r"shared memory of 0 MiB.*--ipc=host"):
        encoding._loader_processes(10, 29)


def test_a_torchvision_without_nvjpeg_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "decode_jpegs_cuda: torchvision not compiled with nvJPEG support"

    def decode(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr("torchvision.io.decode_jpeg", decode)
    with pytest.raises(NotHereError, match="without nvJPEG"):
        encoding._nvjpeg(CPU, 0.01)
    said = "the picture is broken"
    with pytest.raises(RuntimeError, match="broken"):
        encoding._nvjpeg(CPU, 0.01)


@pytest.mark.usefixtures("one_thread")
def test_all_cells_of_training_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("transmil", "vit"):
        monkeypatch.setitem(mil.SETTINGS, name, {"hidden": 32})
    for name, part in (("mil", mil), ("losses", losses)):
        part.measure(Record(tmp_path / f"{name}.json"), CPU, small=True)
        found = cells(tmp_path / f"{name}.json")
        assert all("figures" in cell for cell in found.values()), found
    figures = cells(tmp_path / "mil.json")["vit"]["figures"]
    assert figures["fp32_vs_peers"] > 0
    assert figures["fp32_limit"] in ("products", "memory", "upload")
    assert cells(tmp_path / "losses.json")["reduced_4"]["figures"]["ncmi_over_ce"] > 0


@pytest.mark.usefixtures("one_thread")
def test_all_cells_of_extraction_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "TILE_PX", 64)
    monkeypatch.setattr(encoding, "_slides", lambda *_: {"tiles_s": 1.0})  # test_extraction has it
    encoding.jpegs.cache_clear()
    encoding.measure(Record(tmp_path / "encoding.json"), CPU, small=True)
    encoding.jpegs.cache_clear()
    found = cells(tmp_path / "encoding.json")
    assert found["nvimagecodec"] == {
        "left_out": "nvImageCodec needs a GPU, also for what it decodes on the CPU"
    }
    assert all("figures" in cell for name, cell in found.items() if name != "nvimagecodec"), found
    # On the CPU both decoders are libjpeg-turbo: the same pixels, so the same vectors.
    assert found["nvjpeg"]["figures"]["levels_apart_most"] == 0
    assert found["nvjpeg"]["figures"]["cosine_least"] == pytest.approx(1, abs=1e-5)
    fed = found["squeezenet_threads"]["figures"]
    assert fed["tiles_s"] == pytest.approx(max(fed["tiles_s_by_threads"].values()), abs=0.1)


def test_paths_are_those_of_the_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: torch.device) -> str:
        raise ValueError("pixels differ")

    monkeypatch.setattr(paths, "CHECKS", {"slices": paths.CHECKS["slices"], "wrong": wrong})
    paths.measure(Record(tmp_path / "paths.json"), CPU, small=True)
    found = cells(tmp_path / "paths.json")
    assert found["slices"]["figures"]["found"].endswith("of them slices")
    assert found["wrong"]["error"] == "ValueError: pixels differ"
    assert found["torchrun"] == {"left_out": "there is no GPU to count"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """100 drawn images of 4 classes, as mosaics of 5 × 10 in two folders; the labels are in the second."""
    y = np.arange(50) % 4
    rng = np.random.default_rng(0)
    for name in ("train_0", "train_1", "test"):
        pixels = rng.integers(0, 80, (50, 8, 8, 3)).astype(np.uint8)
        pixels[..., 0] += (50 * y)[:, None, None].astype(np.uint8)
        mosaic = pixels.reshape(5, 10, 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(40, 80, 3)
        folder = tmp_path / ("first" if name == "train_0" else "second")
        folder.mkdir(exist_ok=True)
        Image.fromarray(mosaic).save(folder / f"{name}.webp", lossless=True)
    np.savez(tmp_path / "second" / "labels.npz", train=np.tile(y, 2), test=y)
    (tmp_path / "second" / "meta.json").write_text('{"grid": 10}')
    return tmp_path


def test_mosaics_may_come_in_several_calls(images: Path) -> None:
    out = images / "out"
    with pytest.raises(NotHereError, match="name its folder"):
        cifar.gathered([], out)
    with pytest.raises(NotHereError, match="name its folder"):
        cifar.gathered([images / "first"], out)
    whole = cifar.gathered([images / "second"], out)
    assert whole == cifar.gathered([], out) == out / "cifar100.npz"
    with np.load(whole) as content:
        assert content["x_train"].shape == (100, 8, 8, 3)
        np.testing.assert_array_equal(content["y_train"], np.tile(np.arange(50) % 4, 2))
    with pytest.raises(NotHereError, match="50 images and 100 labels"):
        cifar.gathered([images / "second"], images / "other")
    assert cifar.gathered([whole], images / "third") == whole


@pytest.mark.usefixtures("one_thread")
def test_a_training_in_pieces_is_that_in_one_go_to_the_bit(images: Path) -> None:
    data = cifar.gathered([images / "first", images / "second"], images / "out")
    for name, pieces in (("whole", [60.0]), ("pieces", [0.0, 0.0, 60.0])):
        for seconds in pieces:
            cifar.run(data, images / name, "authors", 0, seconds, device="cpu", small=True)
    assert cells(images / "whole.json")["finished"]
    a, b = (images / name / "model.safetensors" for name in ("whole", "pieces"))
    assert a.read_bytes() == b.read_bytes()
    form = json.loads((images / "whole" / "run.json").read_text())["identity"]["form"]
    assert (form["centring_momentum"], form["temperature"], form["code_words"]) == (1 - 1e-6, 0.2, "identity")


def test_a_training_that_is_stopped_says_how_far_it_is(images: Path) -> None:
    out = images / "out"
    kept = Record(out / "cifar.json", time.monotonic() + 60)
    (out / "cifar").mkdir(parents=True)
    (out / "cifar" / "ce_seed0.log").write_text("Traceback\nInputError: no\n")
    cifar._note(kept, out, "ce", 0)
    assert kept.cells["ce_seed0"]["error"] == "InputError: no"
    (out / "cifar" / "ce_seed0.json").write_text('{"finished": false, "epochs": 7, "top1": 0.5}')
    cifar._note(kept, out, "ce", 0)
    assert gpu.told(kept.cells["ce_seed0"]) == "left out: epoch 7 done; the same call goes on"
    (out / "cifar" / "ce_seed0.json").write_text('{"finished": true, "epochs": 200, "top1": 0.75}')
    cifar._note(kept, out, "ce", 0)
    assert gpu.told(kept.cells["ce_seed0"]) == "finished True, epochs 200, top1 0.75"


def test_the_recipe_is_that_of_the_public_codes() -> None:
    job = cifar.job_of(device="cpu", small=False)
    recipe = job.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.precision, recipe.channels_last) == (
        200,
        128,
        "bfloat16",
        True,
    )
    assert (recipe.milestones, recipe.gamma, job.data.place, job.data.rotation_deg) == (
        (0.3, 0.6, 0.8),
        0.2,
        "device",
        15,
    )


BLOCKED = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def without(name, path=None, target=None):
    found = find(name, path, target)
    blocked = name.partition(".")[0] in {names} and "stand_ins" not in str(found and found.origin)
    return None if blocked else found
PathFinder.find_spec = without
"""
LEFT_OUT = ("pydantic", "pydantic_core", "lazy_loader", "scipy", "pandas", "psutil", "typer", "rich", "sklearn", "skimage",
            "openslide", "tiffslide", "tifffile", "imagecodecs", "simplejpeg", "shapely", "pydicom", "matplotlib")  # fmt: skip


def test_nothing_else_is_needed(tmp_path: Path) -> None:
    """The command itself, in an interpreter without this project's other packages."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKED.format(names=LEFT_OUT))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from benchmarks import gpu; from pathlib import Path\n"
        "out = Path(sys.argv[1]); gpu.search_path(out, None)\n"
        "assert 'stand_ins' in gpu._file_of('pydantic')\n"
        "from benchmarks.gpu_parts import cifar, losses, mil, paths, encoding\n"
        "gpu.run_part('losses', out, 100, small=True)\n"
        "print(sorted(set(sys.modules) & set({names}) - {'pydantic', 'pydantic_core', 'lazy_loader'}))"
    ).replace("{names}", repr(LEFT_OUT))
    ended = subprocess.run(
        [sys.executable, "-c", script, ROOT, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().endswith("[]")
    assert all("figures" in cell for cell in cells(tmp_path / "losses.json").values()), cells(
        tmp_path / "losses.json"
    )


def test_wheels_are_unpacked_and_those_of_another_python_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "thing-1-py3-none-any.whl", "w") as archive:
        archive.writestr("thing_of_a_wheel.py", "x = 1\n")
    assert str(tmp_path / "packages") in gpu.search_path(tmp_path, wheels)
    assert (tmp_path / "packages" / "thing_of_a_wheel.py").is_file()
    (wheels / "thing-1-cp38-cp38-manylinux_2_28_x86_64.whl").touch()
    with pytest.raises(SystemExit, match="isn't for this Python"):
        gpu.search_path(tmp_path, wheels)


def test_what_has_no_stand_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gpu, "NEEDED", ("numpy", "no_such_package"))
    with pytest.raises(SystemExit, match="no_such_package isn't installed: pip install numpy"):
        gpu.search_path(tmp_path, None)


def test_parts_are_run_one_by_one_and_a_dead_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = []

    def call(arguments: list[str], out: Path, path: list[str], name: str, seconds: float) -> int:
        called.append((name, "--again" in arguments))
        (out / f"{name}.log").write_text("Traceback\nImportError: no module\n")
        if name == "machine":
            (out / "machine.json").write_text('{"gpu": "A card"}')
            return 0
        if name == "mil":
            (out / "mil.json").write_text('{"abmil": {"figures": {"ratio": 2.5}}, "vit": {"begun": true}}')
            return 0
        return 1

    monkeypatch.setattr(gpu, "_call", call)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path), "--only", "losses", "mil"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert gpu.main() == 1
    assert called == [
        ("machine", False),
        ("mil", False),
        ("losses", False),
        ("losses", True),
        ("losses", True),
    ]
    shown = capsys.readouterr().out.splitlines()
    assert f"{'mil':9} {'abmil':20} ratio 2.5" in shown
    assert f"{'mil':9} {'vit':20} FAILED: ended in this cell" in shown
    assert f"{'losses':9} {'part':20} FAILED: ImportError: no module" in shown
    assert json.loads(shown[-1])["parts"]["mil"]["abmil"]["figures"] == {"ratio": 2.5}


def test_a_part_without_time_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = []
    monkeypatch.setattr(gpu, "_call", lambda *given: called.append(given))
    given = argparse.Namespace(out=tmp_path, only=["mil", "losses"], seeds=1, small=True, cifar=[])
    assert gpu.run_all(given, [], time.monotonic() - 1) == {}
    assert called == []
    assert capsys.readouterr().out == "mil: no time was left\nlosses: no time was left\n"


def test_without_a_gpu_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(_: object, out: Path, *more: object) -> int:
        (out / "machine.json").write_text('{"gpu": ""}')
        return 0

    monkeypatch.setattr(gpu, "_call", call)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert gpu.main() == 2
    assert capsys.readouterr().err.startswith("torch sees no GPU here; --small runs all parts in small")


def test_a_part_is_a_process_that_is_ended_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu._call(["--help"], tmp_path, [], "help", 60) == 0
    assert "--minutes" in (tmp_path / "help.log").read_text()
    script = tmp_path / "sleeper.py"
    script.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setattr(gpu, "_GRACE_S", 0.0)
    began = time.monotonic()
    assert gpu._call([], tmp_path, [], "sleeper", 0.1) == -1
    assert time.monotonic() - began < 30
