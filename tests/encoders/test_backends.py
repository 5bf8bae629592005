"""Backends give the same vectors to their rounding; memory that runs out halves the batch; missing extras say so."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders import EncoderConfig, load_encoder
from wsi_ncmi.encoders.backends import _has_bf16
from wsi_ncmi.encoders.base import is_out_of_memory
from wsi_ncmi.encoders.network import find_batch_size
from wsi_ncmi.encoders.torch_backend import FromPixels, TorchBackend, resized_on_device

NAME = "torchvision:squeezenet1_1"


def options(**more) -> EncoderConfig:
    return EncoderConfig(**{"name": NAME, "device": "cpu", "batch_size": 4, "input_px": 64, **more})


@pytest.mark.parametrize(("backend", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_an_exported_network_gives_the_same_vectors(backend, module, tiles) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    exact = load_encoder(options())
    exported = load_encoder(options(backend=backend))
    assert exported.info.backend == {"onnx": "onnxruntime-cpu", "openvino": "openvino-cpu"}[backend]
    assert (exported.info.precision, exported.info.embed_dim) == ("fp32", exact.info.embed_dim)
    np.testing.assert_allclose(exported.encode(tiles), exact.encode(tiles), rtol=1e-3, atol=1e-5)
    if backend == "openvino":
        with pytest.raises(ImportError):
            importlib.import_module("openvino_telemetry")  # its reports to its makers can't be sent


@pytest.mark.parametrize(("backend", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_extra_says_how_to_get_it(backend, module, without) -> None:
    without(module)
    with pytest.raises(InputError, match=rf"wsi-ncmi\[{backend}\]"):
        load_encoder(options(backend=backend))


def test_memory_that_runs_out_halves_the_batch_for_good(tiles, monkeypatch, caplog) -> None:
    usual = load_encoder(options(batch_size=1)).encode(tiles)
    encoder = load_encoder(options(batch_size=8))
    begin = encoder._computes.begin
    sizes = []

    def small(batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")
        return begin(batch)

    monkeypatch.setattr(encoder._computes, "begin", small)
    np.testing.assert_allclose(encoder.encode(tiles), usual, rtol=1e-4, atol=1e-6)
    assert sizes == [8, 4, 2, 2, 2]
    assert encoder.info.batch_size == 2
    assert "halved to 2" in encoder.remark
    assert "halved to 4" in caplog.text
    np.testing.assert_array_equal(encoder.begin(tiles)(), encoder.encode(tiles))
    monkeypatch.setattr(encoder._computes, "begin", lambda _: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        encoder.encode(tiles)


def test_begin_gives_what_encode_gives(tiles) -> None:
    encoder = load_encoder(options())
    for count in (1, 4, 5):  # padded, full, more than a batch
        np.testing.assert_array_equal(encoder.begin(tiles[:count])(), encoder.encode(tiles[:count]))


def test_the_first_batch_on_a_gpu_waits_for_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of torch's don't wait for the one on which weights are laid out anew."""
    order: list[object] = []

    class Stream:
        def __init__(self, device: torch.device) -> None: ...

        def wait_stream(self, other: str) -> None:
            order.append(other)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"current of {device}")
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: order.append("moved") or self)
    network = FromPixels(torch.nn.Identity(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    TorchBackend(network, torch.device("cuda"), "fp32", 8, "bilinear")
    assert order == ["moved", "moved", "current of cuda"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if…"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_faults(error, expected) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(("limit", "found"), [(1000, 256), (256, 256), (255, 64), (64, 32), (8, 8), (9, 8)])
def test_the_largest_batch_stays_clear_of_the_limit(limit: int, found: int) -> None:
    def run(size: int) -> None:
        if size > limit:
            raise MemoryError

    assert find_batch_size(run, largest=256, smallest=8) == found


def test_not_even_the_smallest_batch() -> None:
    def run(size: int) -> None:
        raise MemoryError

    with pytest.raises(MemoryError, match="batch of 8 tiles"):
        find_batch_size(run, largest=64, smallest=8)

    def other(size: int) -> None:
        raise ValueError("another fault")

    with pytest.raises(ValueError, match="another fault"):
        find_batch_size(other, largest=64)


class Stream:
    """A CUDA stream's stand-in: it writes down in which order it was used."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name, self._log = name, log

    def record_event(self) -> Stream:
        self._log.append(f"{self._name} records")
        return self

    def wait_event(self, event: Stream) -> None:
        self._log.append(f"{self._name} waits for {event._name}")

    def synchronize(self) -> None:
        self._log.append(f"the caller waits for {self._name}")


def test_the_way_over_a_device_gives_what_the_cpu_gives(tiles, monkeypatch) -> None:
    """All of it but the device: streams and pinned memory have stand-ins, tensors stay where they are."""
    log: list[str] = []
    network = FromPixels(torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.AdaptiveAvgPool2d(1),
                                             torch.nn.Flatten()), (0.5, 0.4, 0.3), (0.2, 0.2, 0.3))  # fmt: skip
    backend = TorchBackend(network, torch.device("cpu"), "fp32", 48, "bilinear")
    backend._copying, backend._computing = Stream("copying", log), Stream("computing", log)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory, **more: empty(*shape, **more))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda pixels, stream: None)
    batch = torch.from_numpy(tiles).permute(0, 3, 1, 2)
    with torch.inference_mode():
        first, second = backend._begin_on_cuda(batch), backend._begin_on_cuda(batch.flip(0))
        expected = network(resized_on_device(batch, 48, "bilinear")).numpy()
    assert not any(line.startswith("the caller") for line in log), (
        "nobody waits before the vectors are wanted"
    )
    np.testing.assert_array_equal(first(), expected)
    np.testing.assert_allclose(second(), expected[::-1], rtol=1e-5)
    begun = ["copying records", "computing waits for copying", "computing records"]
    assert log == [*begun, *begun, *["the caller waits for computing"] * 2]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_the_devices_resize_is_that_of_pil(mode: str, tiles) -> None:
    batch = torch.from_numpy(tiles).permute(0, 3, 1, 2)
    found = resized_on_device(batch, 48, mode).permute(0, 2, 3, 1).numpy().astype(int)
    kind = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[mode]
    expected = np.stack([np.asarray(Image.fromarray(tile).resize((48, 48), kind)) for tile in tiles]).astype(
        int
    )
    # PIL rounds and clips between its two passes, which shows where bicubic overshoots on noise like this.
    assert np.percentile(np.abs(found - expected), 97) <= 1
    assert np.abs(found - expected).mean() < 0.5
    assert resized_on_device(batch, 64, mode) is batch


def test_bf16_of_the_processor(tmp_path: Path) -> None:
    for text, expected in (
        ("flags : sse avx512_bf16", True),
        ("flags : sse avx2", False),
        ("Features: bf16", True),
    ):
        (tmp_path / "cpuinfo").write_text(text + "\n")
        assert _has_bf16(tmp_path / "cpuinfo") is expected
    assert _has_bf16(tmp_path / "missing")
