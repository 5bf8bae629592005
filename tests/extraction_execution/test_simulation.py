"""The simulation of large jobs where the answer is known without it."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "scale_simulation.py"


def load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("scale_simulation", PATH)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["scale_simulation"] = module
    specification.loader.exec_module(module)
    return module


simulation = load()
QUIET = {"driver_ms": 0.0, "worker_days": 1e9, "node_days": 1e9, "bad_share": 0.0, "tiles_spread": 0.0}


def hours(**more: object) -> float:
    plan = simulation.Plan(**{**QUIET, **more})
    return float(simulation.Simulation(plan, 0).run()["hours"])


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 4), st.integers(10, 500))
@settings(max_examples=40)
def test_equal_slides_go_in_rounds(slides: int, nodes: int, gpus: int, tiles: int) -> None:
    found = hours(
        slides=slides, nodes=nodes, gpus=gpus, tiles=tiles, rate=10, slide_s=2.0, start_s=30.0, storage_gb_s=1e9,
        node_gb_s=1e9,
    )  # fmt: skip
    assert found * 3600 == pytest.approx(30 + math.ceil(slides / (nodes * gpus)) * (tiles / 10 + 2))


def test_storage_bounds_a_job() -> None:
    found = hours(slides=3200, rate=1000, kb_per_tile=100, storage_gb_s=1.0, slide_s=0.0, start_s=0.0)
    assert found * 3600 == pytest.approx(3200 * 12_000 * 100e3 / 1e9, rel=0.01)


def test_a_slow_driver_bounds_a_job() -> None:
    found = hours(slides=5000, tiles=10, driver_ms=500.0, start_s=0.0)
    assert found * 3600 == pytest.approx(2500, rel=0.01)


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_losses_cost_time_and_no_slide(seed: int) -> None:
    plan = simulation.Plan(slides=800, worker_days=0.02, node_days=0.1, node_back_s=600)
    result = simulation.Simulation(plan, seed).run()  # it holds every slide to be done once
    assert result["workers_lost"] > 0
    assert result["hours"] > result["ideal_hours"]
