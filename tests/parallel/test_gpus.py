"""Which CUDA devices a job shares out: cards, chosen cards, and slices of divided cards."""

from __future__ import annotations

import pytest
import torch

from wsi_ncmi.parallel.gpus import list_devices, visible_gpus

# As nvidia-smi -L prints it (the manual of MIG).
DIVIDED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1f2e3d4c-0000-1111-2222-333344445555)
"""
WHOLE = "\n".join(line for line in DIVIDED.splitlines() if line.startswith("GPU"))
SLICES = ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb")


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch):
    def have(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return have


@pytest.mark.parametrize(
    ("environment", "count", "listing", "expected"),
    [
        ({}, 2, "", ("0", "1")),
        ({}, 2, WHOLE, ("0", "1")),
        ({}, 0, WHOLE, ()),
        ({"CUDA_VISIBLE_DEVICES": "3, 5"}, 2, DIVIDED, ("3", "5")),
        ({"CUDA_VISIBLE_DEVICES": "3,9"}, 1, "", ("3",)),  # CUDA stops at the first that is not there
        # CUDA shows the first slice only, and counts one device.
        ({"CUDA_VISIBLE_DEVICES": ",".join(SLICES)}, 1, DIVIDED, SLICES),
        ({}, 1, DIVIDED, (*SLICES, "GPU-1f2e3d4c-0000-1111-2222-333344445555")),
    ],
)
def test_devices(cards, environment, count, listing, expected) -> None:
    cards(count)
    assert visible_gpus(environment, lambda: listing) == expected


def test_a_machine_without_the_drivers_tool(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_devices() == ""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    assert list_devices() == ""
    tool.write_text("#!/bin/sh\necho GPU 0\n")
    assert list_devices() == "GPU 0\n"
