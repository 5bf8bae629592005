"""Division of cores, memory and GPUs, on made-up machines and clusters."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ncmi.encoders import EncoderConfig
from wsi_ncmi.extraction.execution.plan import Node, WorkerSlot, can_use_gpu, plan_resources, plan_slots

GIB = 1 << 30
NETWORK = EncoderConfig(name="torchvision:resnet50", device="cpu")


def plan(options: EncoderConfig = NETWORK, **more):
    given = {
        "workers": None,
        "slides": 1000,
        "cores": 2,
        "memory": 64 * GIB,
        "gpus": 0,
        "buffer_bytes": 512 << 20,
    }
    return plan_resources(options, **{**given, **more})


@pytest.mark.parametrize(
    ("options", "more", "processes", "encoder_threads", "threads"),
    [
        (NETWORK, {}, 1, 2, 1),  # weights are shared by threads
        (NETWORK, {"cores": 64}, 8, 8, 1),
        (NETWORK, {"cores": 64, "slides": 3}, 3, 21, 1),
        (NETWORK, {"workers": 2}, 2, 1, 1),
        (NETWORK, {"workers": 5}, 5, 1, 1),
        (NETWORK, {"cores": 16, "memory": 4 * GIB}, 2, 2, 1),  # an encoder thread's buffers have to fit
        (NETWORK, {"cores": 16, "memory": GIB // 2}, 1, 1, 1),
        (EncoderConfig(), {"cores": 6}, 6, 1, 1),  # Python between array operations: processes
        (EncoderConfig(), {"cores": 6, "slides": 4}, 4, 1, 1),
        (EncoderConfig(name="torchvision:resnet50", backend="openvino"), {"cores": 8}, 1, 1, 8),
    ],
)
def test_cores_are_divided(options, more, processes, encoder_threads, threads) -> None:
    resources = plan(options, **more)
    assert (resources.processes, resources.pipeline.encoder_threads, resources.threads) == (
        processes,
        encoder_threads,
        threads,
    )
    assert resources.pipeline.buffer_bytes * processes <= 512 << 20


def test_a_gpu_gets_a_process() -> None:
    resources = plan(EncoderConfig(name="timm:vit_tiny_patch16_224"), cores=16, gpus=3)
    assert resources.processes == 3
    assert (
        resources.pipeline.encoder_threads,
        resources.pipeline.readers,
        resources.pipeline.decode_threads,
    ) == (
        1,
        2,
        2,
    )
    assert plan(gpus=2, workers=3).processes == 3
    assert plan(gpus=2, slides=1).processes == 1
    one = plan(gpus=1, cores=1).pipeline
    assert (one.readers, one.decode_threads) == (1, 1)


def test_short_memory_means_fewer_processes_and_smaller_buffers() -> None:
    tight = plan(EncoderConfig(), cores=16, memory=2 * GIB)
    assert tight.processes == 2
    for options in (EncoderConfig(), NETWORK):
        for cores in (1, 4):
            resources = plan(options, cores=cores, memory=2 * GIB)
            pipeline = resources.pipeline
            assert resources.processes * (pipeline.buffer_bytes + pipeline.slide_bytes) < 0.4 * 2 * GIB
    assert plan(cores=32, gpus=4, memory=2 * GIB).processes == 2
    roomy = plan(cores=1).pipeline
    assert (roomy.buffer_bytes, roomy.slide_bytes) == (512 << 20, 2 << 30)
    assert plan(EncoderConfig(), cores=16, memory=2 * GIB, workers=8).processes == 8  # the user knows better


@pytest.mark.parametrize("without", [{"device": "cpu"}, {"backend": "onnx"}, {"name": "descriptor"}])
def test_an_encoder_of_the_cpu_gets_no_gpu(without: dict[str, str]) -> None:
    assert can_use_gpu(EncoderConfig(name="timm:vit_tiny_patch16_224"))
    assert not can_use_gpu(EncoderConfig(**{"name": "timm:vit_tiny_patch16_224", **without}))


VIT = EncoderConfig(name="timm:vit_tiny_patch16_224")
DESCRIPTOR = EncoderConfig()
NODES = st.lists(
    st.builds(Node, st.uuids().map(str), st.integers(0, 200), st.integers(0, 8)),
    unique_by=lambda n: n.identity,
)


@pytest.mark.parametrize(
    ("options", "nodes", "expected"),
    [
        (VIT, [Node("a", 32, 4)], [WorkerSlot("a", slot, 8, True, 4) for slot in range(4)]),
        # A node without a GPU would give other numbers.
        (VIT, [Node("a", 64, 0), Node("b", 2, 1)], [WorkerSlot("b", 0, 2, True, 1)]),
        (VIT, [Node("a", 20, 0)], [WorkerSlot("a", slot, 6, False, 3) for slot in range(3)]),
        (DESCRIPTOR, [Node("a", 2, 1)], [WorkerSlot("a", 0, 1, False, 2), WorkerSlot("a", 1, 1, False, 2)]),
        (
            EncoderConfig(name="timm:vit_tiny_patch16_224", device="cpu"),
            [Node("a", 8, 4)],
            [WorkerSlot("a", 0, 8, False, 1)],
        ),
        (VIT, [Node("a", 0, 0)], []),
        (VIT, [Node("a", 0, 2)], [WorkerSlot("a", 0, 0, True, 2), WorkerSlot("a", 1, 0, True, 2)]),
    ],
)
def test_slots(options: EncoderConfig, nodes: list[Node], expected: list[WorkerSlot]) -> None:
    assert list(plan_slots(nodes, options)) == expected


def test_few_workers_are_dealt_over_the_nodes() -> None:
    slots = plan_slots([Node("a", 8, 4), Node("b", 8, 4)], VIT, workers=3)
    assert [(slot.node, slot.number) for slot in slots] == [("a", 0), ("b", 0), ("a", 1)]


@given(nodes=NODES, options=st.sampled_from([VIT, DESCRIPTOR]), workers=st.none() | st.integers(1, 50))
def test_no_node_is_overbooked(nodes: list[Node], options: EncoderConfig, workers: int | None) -> None:
    slots = plan_slots(nodes, options, workers=workers)
    assert len({(slot.node, slot.number) for slot in slots}) == len(slots)
    assert workers is None or len(slots) <= workers
    cores: Counter[str] = Counter()
    cards: Counter[str] = Counter()
    for slot in slots:
        cores[slot.node] += slot.cores
        cards[slot.node] += slot.gpu
    for node in nodes:
        assert cores[node.identity] <= node.cores
        assert cards[node.identity] <= node.gpus
    assert len({slot.gpu for slot in slots}) <= 1
