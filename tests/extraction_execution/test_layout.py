"""How cores, memory and GPUs are divided, on made-up machines."""

from __future__ import annotations

import pytest

from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.execution.layout import can_use_gpu, plan_layout

GIB = 1 << 30
NETWORK = EncoderConfig(name="torchvision:resnet50", device="cpu")


def plan(options: EncoderConfig = NETWORK, **more):
    given = {
        "workers": None,
        "slides": 1000,
        "cores": 2,
        "memory": 64 * GIB,
        "gpus": (),
        "buffer_bytes": 512 << 20,
    }
    return plan_layout(options, **{**given, **more})


@pytest.mark.parametrize(
    ("options", "more", "processes", "lanes", "threads"),
    [
        (NETWORK, {}, 1, 2, 1),  # weights are shared by threads
        (NETWORK, {"cores": 64}, 8, 8, 1),
        (NETWORK, {"cores": 64, "slides": 3}, 3, 21, 1),
        (NETWORK, {"workers": 2}, 2, 1, 1),
        (NETWORK, {"workers": 5}, 5, 1, 1),
        (NETWORK, {"cores": 16, "memory": 4 * GIB}, 2, 2, 1),  # a lane's buffers have to fit
        (NETWORK, {"cores": 16, "memory": GIB // 2}, 1, 1, 1),
        (EncoderConfig(), {"cores": 6}, 6, 1, 1),  # Python between array operations: processes
        (EncoderConfig(), {"cores": 6, "slides": 4}, 4, 1, 1),
        (EncoderConfig(name="torchvision:resnet50", backend="openvino"), {"cores": 8}, 1, 1, 8),
    ],
)
def test_cores_are_divided(options, more, processes, lanes, threads) -> None:
    layout = plan(options, **more)
    assert (layout.processes, layout.engine.lanes, layout.threads) == (processes, lanes, threads)
    assert layout.devices == (None,) * processes
    assert layout.engine.buffer_bytes * processes <= 512 << 20


def test_gpus_are_dealt_one_a_process() -> None:
    layout = plan(EncoderConfig(name="timm:vit"), cores=16, gpus=("0", "1", "MIG-a/1/0"))
    assert layout.devices == ("0", "1", "MIG-a/1/0")
    assert (layout.engine.lanes, layout.engine.readers, layout.engine.decode_threads) == (1, 2, 2)
    assert plan(gpus=("0", "1"), workers=3).devices == ("0", "1", "0")
    assert plan(gpus=("0", "1"), slides=1).devices == ("0",)
    one = plan(gpus=("0",), cores=1).engine
    assert (one.readers, one.decode_threads) == (1, 1)


def test_short_memory_means_fewer_processes_and_smaller_buffers() -> None:
    tight = plan(EncoderConfig(), cores=16, memory=2 * GIB)
    assert tight.processes == 2
    for options in (EncoderConfig(), NETWORK):
        for cores in (1, 4):
            layout = plan(options, cores=cores, memory=2 * GIB)
            engine = layout.engine
            assert layout.processes * (engine.buffer_bytes + engine.slide_bytes) < 0.4 * 2 * GIB
    assert plan(cores=32, gpus=("0", "1", "2", "3"), memory=2 * GIB).processes == 2
    roomy = plan(cores=1).engine
    assert (roomy.buffer_bytes, roomy.slide_bytes) == (512 << 20, 2 << 30)
    assert plan(EncoderConfig(), cores=16, memory=2 * GIB, workers=8).processes == 8  # the user knows better


@pytest.mark.parametrize("without", [{"device": "cpu"}, {"backend": "onnx"}, {"name": "descriptor"}])
def test_an_encoder_of_the_cpu_gets_no_gpu(without: dict[str, str]) -> None:
    assert can_use_gpu(EncoderConfig(name="timm:vit"))
    assert not can_use_gpu(EncoderConfig(**{"name": "timm:vit", **without}))
