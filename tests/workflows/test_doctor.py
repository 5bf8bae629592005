"""The machine check with planted faults: each is seen, and its remedy said."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from wsi_ncmi import parallel
from wsi_ncmi.doctor import DoctorConfig, Finding, compute, examine, machine, readers, storage

Usage = namedtuple("Usage", "total used free")


def only(findings) -> Finding:
    found = list(findings)
    assert len(found) == 1
    if found[0].status != "ok":
        assert found[0].remedy.endswith(".")
    return found[0]


def test_this_machine_is_looked_at_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_PROBE", "torchvision:squeezenet1_1")
    findings = {
        finding.name: finding for finding in examine(DoctorConfig(out=tmp_path / "new", probe_s=0.01))
    }
    for name in ("python", "openslide", "pixman", "pixels", "codecs", "torch", "output folder", "clock"):
        assert findings[name].status == "ok", findings[name]
    assert findings["throughput"].detail.startswith("squeezenet1_1 ")
    assert "tiles/s" in findings["throughput"].detail
    assert all(finding.remedy for finding in findings.values() if finding.status != "ok")
    assert not (tmp_path / "new").exists()
    assert list(tmp_path.iterdir()) == []


def test_without_openslide_the_rest_is_still_looked_at(tmp_path: Path) -> None:
    script = (
        "import sys\nsys.modules['openslide'] = None\n"
        "from typer.testing import CliRunner\nfrom wsi_ncmi.cli.app import app\n"
        "result = CliRunner().invoke(app, ['doctor', '--json', '--probe-seconds', '0', '--out', sys.argv[1]])\n"
        "print(result.stdout)\nsys.exit(result.exit_code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    findings = {item["name"]: item for item in json.loads(ended.stdout)}
    assert ended.returncode == 1
    assert findings["openslide"]["status"] == "fail"
    assert "pip install openslide-python openslide-bin" in findings["openslide"]["remedy"]
    assert findings["codecs"]["status"] == "ok"
    assert "pixels" not in findings


@pytest.mark.parametrize(
    ("version", "status"), [("0.38.4", "fail"), ("0.39.0", "fail"), ("0.40.0", "ok"), ("0.46.4", "ok")]
)
def test_an_old_pixman_is_a_fault(tmp_path: Path, version: str, status: str) -> None:
    inside = tmp_path / "libopenslide.so.1"
    inside.write_bytes(b"\0../subprojects/pixman-" + version.encode() + b"/pixman/pixman.c\0")
    maps = tmp_path / "maps"
    maps.write_text(f"7f0-7f1 r-xp 00000000 08:01 1    {inside}\n")
    finding = only(readers.pixman(DoctorConfig(), maps))
    assert (finding.status, version in finding.detail) == (status, True)


def test_a_pixman_that_tells_nothing_is_a_warning(tmp_path: Path) -> None:
    assert only(readers.pixman(DoctorConfig(), tmp_path / "none")).status == "warn"


def test_pixels_that_are_wrong_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import openslide
    from PIL import Image

    monkeypatch.setattr(openslide.OpenSlide, "read_region", lambda *_: Image.new("RGBA", (700, 600)))
    finding = only(readers.pixels(DoctorConfig()))
    assert finding.status == "fail"
    assert "of 420000 pixels" in finding.detail


def test_a_broken_codec_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import imagecodecs

    def broken(data: object) -> bytes:
        raise RuntimeError("libopenjp2 is missing")

    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", broken)
    assert only(readers.codecs(DoctorConfig())).detail == "broken: JPEG 2000"


@pytest.mark.parametrize(
    ("built", "driver", "status"),
    [("13.2", "12.4", "fail"), ("12.4", "12.2", "ok"), ("12.4", "13.0", "ok"), (None, "12.4", "warn"),
     (None, "", "ok"), ("13.2", "", "ok")],
)  # fmt: skip
def test_cuda_and_driver_have_to_match(
    monkeypatch: pytest.MonkeyPatch, built: str | None, driver: str, status: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(compute, "driver_cuda", lambda: driver)
    assert only(compute.torch(DoctorConfig())).status == status


Card = namedtuple("Card", "name major minor")


@pytest.mark.parametrize(
    ("free", "major", "words"),
    [(40 << 30, 9, ""), (1 << 30, 9, "batches will be small"), (40 << 30, 6, "no code for sm_61")],
)
def test_gpus_are_looked_at(monkeypatch: pytest.MonkeyPatch, free: int, major: int, words: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Card("A card", major, 1))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (free, 80 << 30))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    card, slices = compute.gpus(DoctorConfig())
    assert words in card.remedy
    assert (card.status == "ok") is (words == "")
    assert slices.detail.startswith("2 slices")


@pytest.mark.parametrize(("size", "status"), [(None, "warn"), (64 << 20, "warn"), (1 << 30, "ok")])
def test_a_tiny_shared_memory(monkeypatch: pytest.MonkeyPatch, size: int | None, status: str) -> None:
    monkeypatch.setattr(parallel, "shared_memory", lambda: size)
    assert only(machine.shared_memory_size(DoctorConfig())).status == status


def test_little_memory_few_files_and_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "memory_limit", lambda: 2 << 30)
    assert only(machine.memory(DoctorConfig())).status == "warn"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert only(machine.limits(DoctorConfig())).status == "warn"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert only(machine.user(DoctorConfig())).status == "warn"
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    assert only(machine.user(DoctorConfig())).status == "ok"


@pytest.mark.parametrize(("ahead_s", "status"), [(0, "ok"), (300, "warn"), (-300, "warn"), (-3e9, "fail")])
def test_a_wrong_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float, status: str) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead_s)
    assert only(machine.clock(DoctorConfig(out=tmp_path))).status == status


def test_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WSI_NCMI_WEIGHTS", raising=False)
    assert only(storage.weights_folder(DoctorConfig())).status == "warn"
    monkeypatch.setenv("WSI_NCMI_WEIGHTS", str(tmp_path / "missing"))
    assert only(storage.weights_folder(DoctorConfig())).status == "fail"
    monkeypatch.setenv("WSI_NCMI_WEIGHTS", str(tmp_path))
    assert only(storage.weights_folder(DoctorConfig())).detail == "it holds no weights"
    (tmp_path / "a.safetensors").touch()
    assert only(storage.weights_folder(DoctorConfig())).status == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "the first is a.safetensors" in only(storage.weights_folder(DoctorConfig())).detail


def test_a_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretverysecret")
    detail = only(storage.offline_switch(DoctorConfig())).detail
    assert "a hub token is set" in detail
    assert "secret" not in detail


def test_slides_that_can_not_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert list(storage.slide_folder(DoctorConfig())) == []
    assert only(storage.slide_folder(DoctorConfig(slides=tmp_path / "none"))).status == "fail"
    (tmp_path / "a.svs").touch()
    assert only(storage.slide_folder(DoctorConfig(slides=tmp_path))).status == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert only(storage.slide_folder(DoctorConfig(slides=tmp_path))).detail == "1 of 1 files can't be read"


def test_an_output_that_can_not_be_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    finding = only(storage.output_folder(DoctorConfig(out=tmp_path)))
    assert finding.status == "fail"
    assert "Read-only file system" in finding.detail
    assert only(storage.disk_speed(DoctorConfig(out=tmp_path))).status == "fail"
    assert list(tmp_path.glob("*.wsi-ncmi-probe*")) == []


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/sys").is_dir(), reason="needs /proc")
def test_a_read_only_folder_is_a_fault() -> None:
    # /proc takes no files from anybody, root included.
    assert only(storage.output_folder(DoctorConfig(out=Path("/proc/sys")))).status == "fail"


def test_a_file_system_without_locks_or_exclusive_creation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_locks(handle: object, how: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    finding = only(storage.output_folder(DoctorConfig(out=tmp_path)))
    assert (finding.status, "HDF5_USE_FILE_LOCKING=FALSE" in finding.remedy) == ("warn", True)
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *more: real(path, flags & ~os.O_EXCL, *more))
    assert "claims don't hold" in only(storage.output_folder(DoctorConfig(out=tmp_path))).detail


def test_a_slow_and_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(storage, "_large", lambda probe: (5.0, 100.0))
    assert only(storage.disk_speed(DoctorConfig(out=tmp_path))).status == "warn"
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder: Usage(0, 0, int(1e9)))
    assert only(storage.disk_space(DoctorConfig(out=tmp_path))).status == "warn"


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def break_(config: DoctorConfig) -> list[Finding]:
        raise RuntimeError("out of order")

    monkeypatch.setattr(storage.shutil, "disk_usage", break_)
    findings = {finding.name: finding for finding in examine(DoctorConfig(out=tmp_path, probe_s=0))}
    assert findings["disk space"] == Finding(
        "disk space", "fail", "RuntimeError: out of order", "Install the locked versions again (make setup)."
    )
