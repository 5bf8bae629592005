"""Acceptance on a GPU in one call: what runs there, how fast, and against what.

    python benchmarks/gpu.py --minutes 9 [--only paths encoding mil losses cifar] [--cifar FOLDER …]
    python benchmarks/gpu.py --small                  # everything on the CPU in small, to see that it runs

Needs numpy, h5py, torch, torchvision, timm and this repository's folder. pydantic and lazy_loader have
stand-ins here for where they are missing (settings then aren't checked); ``--wheels FOLDER`` unpacks wheels
into OUT, for what reads slides (openslide-bin, openslide-python, simplejpeg, imagecodecs, tifffile,
shapely, pydicom, …) or for nvImageCodec.

- ``paths``: what runs on CUDA against the same on the CPU (``wsi-ncmi doctor --gpu``), and ``torch.compile``.
- ``encoding``: extraction with ViT-S, -L and -H of random weights, what feeds them, JPEG on the device.
- ``mil``: training of gated ABMIL, TransMIL and ViT on bags of 10,000 × 1,024.
- ``losses``: cost of a step of NCMI beside cross-entropy.
- ``cifar``: ResNet-18 on CIFAR-100, 200 epochs, in as many calls as it takes. CIFAR-100 is looked for in
  ``../shared/data/cifar100``; its mosaics may come in several folders, also one a call.

Each part is a process. Its cells are written to ``OUT/<part>.json`` one by one; a later call measures what
has no figures yet, and goes on with trainings where they stopped. At the end stand a table, and all cells
as one JSON line (with tracebacks in ``OUT/gpu.json``). Exit code 1 if a cell failed.
"""

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAND_INS = Path(__file__).parent / "gpu_parts" / "stand_ins"
NEEDED = ("numpy", "h5py", "torch", "torchvision", "timm")
SHARES = {"paths": 90, "encoding": 150, "mil": 75, "losses": 45, "cifar": 160}
"""The parts, and how they share the time; what one leaves is the next ones'."""
_TRIES = 3
_GRACE_S = 15.0


def search_path(out: Path, wheels: Path | None) -> list[str]:
    """Folders to import from: the repository, unpacked wheels, and stand-ins for what is missing.

    Raises:
        SystemExit: A package that has no stand-in is missing, or a wheel is for another Python.
    """
    folders = [ROOT]
    packages = out / "packages"
    for wheel in sorted(wheels.glob("*.whl")) if wheels else ():
        python, abi = wheel.stem.split("-")[-3:-1]
        here = f"cp{sys.version_info[0]}{sys.version_info[1]}"
        if not (abi == "abi3" or {"py3", here} & set(python.split("."))):
            raise SystemExit(f"{wheel.name} isn't for this Python ({here}); give its wheel for that.")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    if packages.is_dir():
        folders.append(packages)
    sys.path[:0] = map(str, folders)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} isn't installed: pip install {' '.join(NEEDED)}")
    stand_ins = [
        STAND_INS / name for name in ("pydantic", "lazy_loader") if not importlib.util.find_spec(name)
    ]
    sys.path[:0] = map(str, stand_ins)
    return [str(folder) for folder in (*stand_ins, *folders)]


def run_part(
    name: str,
    out: Path,
    seconds: float,
    *,
    small: bool,
    again: bool = False,
    cifar: Sequence[Path] = (),
    seeds: int = 1,
) -> None:
    """Measures a part in this process."""
    import torch

    from benchmarks.gpu_parts.record import Record

    logging.getLogger("wsi_ncmi.encoders").setLevel(logging.ERROR)  # that weights are random is meant
    device = torch.device("cpu" if small else "cuda")
    if small:
        torch.set_num_threads(1)
    record = Record(out / f"{name}.json", time.monotonic() + seconds, again=again)
    part = importlib.import_module(f"benchmarks.gpu_parts.{name}")
    more = {"cifar": cifar, "seeds": seeds, "out": out} if name == "cifar" else {}
    part.measure(record, device, small=small, **more)


def machine() -> dict[str, Any]:
    """Card, driver, versions, and what stands in for a package."""
    import timm
    import torch
    import torchvision

    from wsi_ncmi.core.provenance import collect_provenance

    found = {
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "stand_ins": [name for name in ("pydantic", "lazy_loader") if str(STAND_INS) in _file_of(name)],
        "gpu": "",
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": card.name, "gpu_gib": round(card.total_memory / 2**30, 1),
            "capability": f"{card.major}.{card.minor}", "cudnn": torch.backends.cudnn.version(),
            "gpus": torch.cuda.device_count(),
        }  # fmt: skip
    return {**collect_provenance(), **found}


def _file_of(name: str) -> str:
    spec = importlib.util.find_spec(name)
    return str(spec.origin) if spec else ""


def _call(arguments: Sequence[str], out: Path, path: Sequence[str], name: str, seconds: float) -> int:
    """Runs this script as a process group of its own, ended at the limit; its exit code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
    with (out / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments], cwd=ROOT, env=environment, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(seconds + _GRACE_S)
        except subprocess.TimeoutExpired:
            return -1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_all(given: argparse.Namespace, path: Sequence[str], until: float) -> dict[str, Any]:
    """Runs the parts one after the other, and gives all that is on record."""
    out: Path = given.out
    waiting = [name for name in SHARES if name in given.only]
    for number, name in enumerate(waiting):
        left = until - time.monotonic()
        share = left * SHARES[name] / sum(SHARES[each] for each in waiting[number:])
        ends = time.monotonic() + share
        arguments = ["--out", str(out), "--seeds", str(given.seeds), "--part", name]
        arguments += ["--small"] if given.small else []
        arguments += ["--cifar", *map(str, given.cifar)] if given.cifar else []
        if share <= 0:
            print(f"{name}: no time was left", flush=True)
            continue
        for tried in range(_TRIES):
            seconds = ends - time.monotonic()
            if tried == 1:
                arguments.append("--again")
            code = _call([*arguments, "--seconds", f"{seconds:.1f}"], out, path, name, seconds)
            if code == 0 or ends - time.monotonic() < _GRACE_S:
                break
        how = "done" if code == 0 else f"ended with {code}"
        print(f"{name}: {how}, {until - time.monotonic():.0f} s left", flush=True)
        if code and not (out / f"{name}.json").is_file():
            said = (out / f"{name}.log").read_text("utf-8", errors="replace").strip()
            cell = {"error": said.splitlines()[-1] if said else how, "traceback": said[-4000:]}
            (out / f"{name}.json").write_text(json.dumps({"part": cell}))
    parts = {name: out / f"{name}.json" for name in SHARES}
    return {name: json.loads(file.read_text("utf-8")) for name, file in parts.items() if file.is_file()}


def told(cell: dict[str, Any]) -> str:
    """A cell in a line: its figures, or why it has none."""
    if "figures" in cell:
        return ", ".join(f"{key} {value}" for key, value in cell["figures"].items())
    if "left_out" in cell:
        return f"left out: {cell['left_out']}"
    return f"FAILED: {cell.get('error', 'ended in this cell')}"


def main() -> int:
    """Runs the parts and prints; the exit code."""
    began = time.monotonic()
    # Files here have names of packages (coverage, training) that others would import by mistake.
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != ROOT / "benchmarks"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu")
    parser.add_argument(
        "--cifar", nargs="+", type=Path, help="CIFAR-100, or folders with some of its mosaics each"
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each loss on CIFAR-100")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to unpack into OUT")
    parser.add_argument("--small", action="store_true", help="everything in small on the CPU")
    parser.add_argument("--part", choices=["machine", *SHARES], help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.cifar is None:
        usual = ROOT.parent / "shared" / "data" / "cifar100"
        given.cifar = [usual] if usual.is_dir() else []
    if given.part == "machine":
        (given.out / "machine.json").write_text(json.dumps(machine()))
        return 0
    if given.part:
        run_part(
            given.part, given.out, given.seconds, small=given.small, again=given.again, cifar=given.cifar,
            seeds=given.seeds,
        )  # fmt: skip
        return 0
    given.cifar = [folder.resolve() for folder in given.cifar]
    path = search_path(given.out, given.wheels)
    if _call(["--out", str(given.out), "--part", "machine"], given.out, path, "machine", 120) != 0:
        print((given.out / "machine.log").read_text("utf-8", errors="replace"), file=sys.stderr)
        return 2
    here = json.loads((given.out / "machine.json").read_text("utf-8"))
    if not (here["gpu"] or given.small):
        print("torch sees no GPU here; --small runs all parts in small on the CPU.", file=sys.stderr)
        return 2
    # What ends a process at its limit and writes the table needs a few seconds of the minutes, too.
    parts = run_all(given, path, began + 60 * given.minutes - _GRACE_S - 5)
    found = {"machine": here, "minutes": given.minutes, "small": given.small, "parts": parts}
    (given.out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
    failed = 0
    for name, cells in parts.items():
        for cell, content in cells.items():
            failed += "error" in content or "begun" in content
            content.pop("traceback", None)
            print(f"{name:9} {cell:20} {told(content)}")
    print(json.dumps(found))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
