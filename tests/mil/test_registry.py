"""Measured costs equal those counted by hand, and memory stays bounded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from wsi_ncmi.mil import list_models, measure_model, model_config

# Published sizes at 1,024 features and 2 classes, counted layer by layer; the head is not in them.
BY_HAND = {
    "abmil": 1024 * 128 + 128 + 2 * (128 * 64 + 64) + 64 + 1,
    "clam_sb": 1024 * 512 + 512 + 2 * (512 * 256 + 256) + 256 + 1 + 2 * (512 * 2 + 2),
    "clam_mb": 1024 * 512 + 512 + 2 * (512 * 256 + 256) + 2 * 256 + 2 + 2 * (512 * 2 + 2),
    "dsmil": 1024 * 2 + 2 + 1024 * 128 + 128 + 128 * 128 + 128,
    "transmil": 1024 * 512 + 512 + 512 + 2 * (1024 + 512 * 1536 + 512 * 512 + 512 + 8 * 33)
    + 512 * (49 + 25 + 9) + 3 * 512 + 1024,
    "dtfd": 1024 * 512 + 2 * (2 * (512 * 128 + 128) + 128 + 1) + 512 * 2 + 2,
    "acmil": 1024 * 512 + 2 * (512 * 128 + 128) + 5 * 129 + 5 * (512 * 2 + 2),
    "aem": 1024 * 512 + 512 + 2 * (512 * 128 + 128) + 128 + 1,
    "asmil": 1024 * 512 + 8 * (512 + 4 * (512 * 512 + 512) + 1024) + 512 + 4 * (512 * 512 + 512) + 1024,
    "vit": 1024 * 512 + 512 + 512 + 2 * (6 * (512 * 512 + 512) + 2 * 1024) + 1024,
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_parameters_are_those_of_the_published_sizes(name):
    assert measure_model(model_config(name=name), instances=2).parameters == BY_HAND[name]


def test_operations_of_an_instance():
    cost = measure_model(model_config(name="abmil"), instances=64)
    # Projection, both halves of the attention branch, its score: two operations a weight.
    assert cost.flops_per_instance == 2 * (1024 * 128 + 128 * 128 + 64)
    few, many = (measure_model(model_config(name="vit", hidden=64), 16, 2, n) for n in (64, 256))
    assert many.flops_per_instance > few.flops_per_instance  # full attention grows with the bag
    plain = [measure_model(model_config(name="acmil"), 16, 2, n).flops_per_instance for n in (64, 256)]
    assert plain[0] == plain[1]


def test_the_catalogue_tells_everything():
    names = [info.name for info in list_models()]
    assert len(set(names)) == len(names) == 15
    for info in list_models():
        assert info.paper
        assert info.summary
        assert info.reported_attention


_PROBE = """
import json, sys, torch
torch.set_num_threads(1)
from tests.mil.settings import config_with
from wsi_ncmi.mil import BagBatch, build_aggregator, list_models
# The system's other figure, ru_maxrss, starts from the peak of the process that started this one.
peak = lambda: 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
big, square = torch.randn(100_000, 32), torch.randn(10_000, 32)
with torch.no_grad():
    found = {}
    for info in sorted(list_models(), key=lambda info: info.full_attention):
        vit = {"layers": 1, "heads": 8, "feed_forward": 8}
        model = build_aggregator(config_with(info.name, hidden=32, attention=16, vit=vit), 32, 2).eval()
        before = peak()
        output = model(BagBatch.pack([square if info.full_attention else big]))
        assert torch.isfinite(output.embedding).all() and torch.isfinite(output.attention).all(), info.name
        found[info.name] = peak() - before
print(json.dumps(found))
"""


def test_memory_is_bounded_by_the_bag():
    """A bag of 100,000 × 32 is 13 MB; eight 10,000 × 10,000 attention matrices would be 3,200 MB."""
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True)
    for name, grown in json.loads(done.stdout.splitlines()[-1]).items():
        assert grown < 400e6, f"{name} took {grown / 1e6:.0f} MB"
