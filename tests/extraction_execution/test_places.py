"""How a cluster is divided, on made-up clusters."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_ncmi.encoders import EncoderConfig, EncoderInfo
from wsi_ncmi.extraction.execution.places import Node, Place, plan_places

NETWORK = EncoderConfig(name="timm:vit")
DESCRIPTOR = EncoderConfig()
NODES = st.lists(
    st.builds(Node, st.uuids().map(str), st.integers(0, 200), st.integers(0, 8)),
    unique_by=lambda n: n.identity,
)


@pytest.mark.parametrize(
    ("options", "nodes", "expected"),
    [
        (NETWORK, [Node("a", 32, 4)], [Place("a", slot, 8, True, 4) for slot in range(4)]),
        # A node without a GPU would give other numbers.
        (NETWORK, [Node("a", 64, 0), Node("b", 2, 1)], [Place("b", 0, 2, True, 1)]),
        (NETWORK, [Node("a", 20, 0)], [Place("a", slot, 6, False, 3) for slot in range(3)]),
        (DESCRIPTOR, [Node("a", 2, 1)], [Place("a", 0, 1, False, 2), Place("a", 1, 1, False, 2)]),
        (EncoderConfig(name="timm:vit", device="cpu"), [Node("a", 8, 4)], [Place("a", 0, 8, False, 1)]),
        (NETWORK, [Node("a", 0, 0)], []),
        (NETWORK, [Node("a", 0, 2)], [Place("a", 0, 0, True, 2), Place("a", 1, 0, True, 2)]),
    ],
)
def test_places(options: EncoderConfig, nodes: list[Node], expected: list[Place]) -> None:
    assert list(plan_places(nodes, options)) == expected


def test_few_workers_are_dealt_over_the_nodes() -> None:
    places = plan_places([Node("a", 8, 4), Node("b", 8, 4)], NETWORK, workers=3)
    assert [(place.node, place.slot) for place in places] == [("a", 0), ("b", 0), ("a", 1)]


@given(nodes=NODES, options=st.sampled_from([NETWORK, DESCRIPTOR]), workers=st.none() | st.integers(1, 50))
def test_no_node_is_overbooked(nodes: list[Node], options: EncoderConfig, workers: int | None) -> None:
    places = plan_places(nodes, options, workers=workers)
    assert len({(place.node, place.slot) for place in places}) == len(places)
    assert workers is None or len(places) <= workers
    cores: Counter[str] = Counter()
    cards: Counter[str] = Counter()
    for place in places:
        cores[place.node] += place.cores
        cards[place.node] += place.gpu
    for node in nodes:
        assert cores[node.identity] <= node.cores
        assert cards[node.identity] <= node.gpus
    assert len({place.gpu for place in places}) <= 1


CARD = EncoderInfo("timm:vit", 8, "t", "w", "file a", "fp16", "torch-cuda", 64)


@pytest.mark.parametrize(
    ("changed", "words"),
    [({}, ""), ({"weights_source": "file b"}, ""), ({"precision": "fp32"}, "precision fp32 instead of fp16"),
     ({"batch_size": 32}, "batch_size 32 instead of 64"), ({"weights_sha256": "x"}, "weights_sha256")],
)  # fmt: skip
def test_cards_tell_what_would_change_numbers(changed: dict[str, object], words: str) -> None:
    from dataclasses import replace

    found = CARD.difference(replace(CARD, **changed))
    assert found.startswith(words)
    assert bool(found) is bool(words)
