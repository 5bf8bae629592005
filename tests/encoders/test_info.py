"""Differences between two encoders, told where they change numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wsi_ncmi.encoders import EncoderInfo

INFO = EncoderInfo("timm:vit", 8, "t", "w", "file a", "fp16", "torch-cuda", 64)


@pytest.mark.parametrize(
    ("changed", "words"),
    [({}, ""), ({"weights_source": "file b"}, ""), ({"precision": "fp32"}, "precision fp32 instead of fp16"),
     ({"batch_size": 32}, "batch_size 32 instead of 64"), ({"weights_sha256": "x"}, "weights_sha256")],
)  # fmt: skip
def test_a_difference_tells_what_would_change_numbers(changed: dict[str, object], words: str) -> None:
    found = INFO.difference(replace(INFO, **changed))
    assert found.startswith(words)
    assert bool(found) is bool(words)
