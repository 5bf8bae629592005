"""The checks of ``doctor --gpu`` with the CPU in the GPU's place: right is right, and planted faults are seen."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.doctor import gpu
from wsi_ncmi.encoders.torch_backend import TorchBackend

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "_NETWORK", "torchvision:squeezenet1_1")
    monkeypatch.setattr(gpu, "_INPUT_PX", 64)
    monkeypatch.setattr(gpu, "_TOO_LARGE", 32)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", sorted(gpu.CHECKS))
def test_what_is_right_is_found_right(name: str) -> None:
    assert gpu.CHECKS[name](CPU)


def test_wrong_vectors_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = TorchBackend._forward

    def off(self: TorchBackend, batch: torch.Tensor) -> torch.Tensor:
        features = forward(self, batch)
        return features if self.precision == "fp32" else features.flip(1)

    monkeypatch.setattr(TorchBackend, "_forward", off)
    with pytest.raises(ValueError, match="vectors of bf16 have a cosine of"):
        gpu._encoding(CPU)


def test_batches_that_are_mixed_up_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, kept = TorchBackend.begin, []

    def mixed(self: TorchBackend, batch: torch.Tensor):
        kept.append(begin(self, batch)())
        return lambda: kept[-1]  # the memory of a later batch

    monkeypatch.setattr(TorchBackend, "begin", mixed)
    with pytest.raises(ValueError, match="a batch in flight differs"):
        gpu._streaming(CPU)


def test_memory_that_runs_out_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = TorchBackend.begin

    def full(self: TorchBackend, batch: torch.Tensor):
        if len(batch) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return begin(self, batch)

    monkeypatch.setattr(gpu, "_TOO_LARGE", 16)
    monkeypatch.setattr(TorchBackend, "begin", full)
    assert "memory ran out, so batches were halved to 8 tiles" in gpu._memory(CPU)


@pytest.mark.parametrize("name", ["models", "losses"])
def test_a_model_or_loss_that_differs_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    compare = gpu._compare
    monkeypatch.setattr(gpu, "_compare", lambda what, found, *rest: compare(what, found + 1, *rest))
    with pytest.raises(ValueError, match=r"ABMIL differs by|the loss ncmi differs by"):
        gpu.CHECKS[name](CPU)


def test_numbers_that_are_not_finite_are_no_match() -> None:
    with pytest.raises(ValueError, match="it differs by nan"):
        gpu._compare("it", torch.tensor([float("nan")]), torch.tensor([1.0]), 1e-3)
    model = torch.nn.Linear(2, 1)
    model.weight.grad = torch.full((1, 2), float("inf"))
    with pytest.raises(ValueError, match="gradient of it's weight"):
        gpu._finite("it", model)


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: torch.device) -> str:
        raise RuntimeError("CUDA error:\n no kernel image")

    monkeypatch.setattr(gpu, "CHECKS", {"broken": broken, "slices": gpu._slices})
    found = list(gpu.findings_of(CPU))
    assert [finding.status for finding in found] == ["fail", "ok"]
    assert found[0].detail == "RuntimeError: CUDA error: no kernel image"
    assert "--device cpu" in found[0].remedy


def test_without_a_gpu_one_sentence_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(app, ["doctor", "--gpu", "--json"])
    found = {item["name"]: item for item in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert set(found) == {"torch", "gpu"}
    assert "torch sees no GPU on this machine" in found["gpu"]["detail"]
