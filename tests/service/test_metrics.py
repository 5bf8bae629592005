"""Metrics in Prometheus' text format, against a parser and a statistic of others."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstwobign

from tests.prediction.models import make_bundle, write_run
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.prediction.ood import OodDetector
from wsi_ncmi.service.metrics import Histogram, ServiceMetrics, gpu_memory, listening

MODEL = {"name": 'a "b"\n\\c', "version": "1.2", "digest": "d" * 64}
_LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+-]+|\+Inf|NaN)')


def parsed(text: str) -> dict[str, float]:
    """Sample → value, held to the format's own rules: each family whole, with help and type before it."""
    values: dict[str, float] = {}
    families: list[str] = []
    lines = text.splitlines()
    assert text.endswith("\n")
    for number, line in enumerate(lines):
        if line.startswith("# HELP "):
            families.append(line.split()[2])
            assert lines[number + 1].startswith(f"# TYPE {families[-1]} ")
        elif not line.startswith("# TYPE "):
            match = _LINE.fullmatch(line)
            assert match, line
            assert match[1] in {families[-1] + end for end in ("", "_bucket", "_sum", "_count")}
            name = line.rpartition(" ")[0]
            assert name not in values
            values[name] = float(match[3])
    assert len(families) == len(set(families))
    return values


def entry(
    status: str = "decided", score: float | None = None, digest: str = MODEL["digest"]
) -> dict[str, Any]:
    return {"event": "answer", "model": {"digest": digest}, "answer": {"status": status, "ood_score": score}}


@pytest.fixture(scope="module")
def ood(tmp_path_factory: pytest.TempPathFactory) -> OodDetector:
    found = make_bundle(write_run(tmp_path_factory.mktemp("run") / "ncmi", folds=1)).ood
    assert found is not None
    return found


def test_a_histogram_counts_as_numpy_does() -> None:
    rng, bounds = np.random.default_rng(0), (0.5, 1.0, 2.0)
    values = [*rng.exponential(size=200).tolist(), *bounds]  # a bound is in its own bucket
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    found = parsed(
        "\n".join(["# HELP x y", "# TYPE x histogram", *histogram.samples("x", {"a": "b"})]) + "\n"
    )
    for bound in bounds:
        assert found[f'x_bucket{{a="b",le="{bound}"}}'] == (np.array(values) <= bound).sum()
    assert found['x_bucket{a="b",le="+Inf"}'] == found['x_count{a="b"}'] == len(values)
    assert found['x_sum{a="b"}'] == pytest.approx(sum(values))


def test_every_metric_stands_in_the_text(ood: OodDetector) -> None:
    now = [100.0]
    metrics = ServiceMetrics(lambda: now[0])
    metrics.use_model(MODEL, ood)
    for one in (entry(), entry("abstained", 1.2), entry("failed"), {"event": "start"}):
        metrics.answered(one)
    metrics.took("extraction", 12.0)
    metrics.took("prediction", 0.2)
    metrics.waited(70.0)
    metrics.looked({"waiting": 3, "done": 2, "quarantined": 1}, 40.0)
    metrics.delivered(2, 5)
    now[0] = 130.0
    found = parsed(metrics.text())
    assert found[f'wsi_ncmi_model_info{{name="a \\"b\\"\\n\\\\c",version="1.2",digest="{"d" * 64}"}}'] == 1
    assert [found[f'wsi_ncmi_slides{{state="{name}"}}'] for name in ("waiting", "done", "quarantined")] == [
        3,
        2,
        1,
    ]
    outcomes = [found[f'wsi_ncmi_answers_total{{outcome="{n}"}}'] for n in ("decided", "abstained", "failed")]
    assert outcomes == [1, 1, 1]
    assert found["wsi_ncmi_audit_log_entries_total"] == 4
    assert found["wsi_ncmi_queue_age_seconds"] == 90
    assert (found["wsi_ncmi_undelivered_answers"], found["wsi_ncmi_hook_failures_total"]) == (5, 2)
    assert found['wsi_ncmi_stage_seconds_bucket{stage="extraction",le="15.0"}'] == 1
    assert found['wsi_ncmi_stage_seconds_bucket{stage="extraction",le="5.0"}'] == 0
    assert found['wsi_ncmi_answer_latency_seconds_bucket{le="300.0"}'] == 1
    assert found['wsi_ncmi_ood_score_bucket{le="1.1"}'] == 0
    assert found["wsi_ncmi_ood_score_count"] == 1
    assert 1e6 < found["wsi_ncmi_resident_memory_bytes"] < 1e11
    assert "wsi_ncmi_ood_drift" not in found  # of one score


@pytest.mark.parametrize(("shift", "drifts"), [(0.0, False), (0.4, True)])
def test_drift_is_that_of_two_samples(ood: OodDetector, shift: float, drifts: bool) -> None:
    reference = np.array(ood.bounds.score_quantiles)
    assert (np.diff(reference) >= 0).all()
    assert reference[-1] == 1  # 24 slides: the bound is the largest
    rng = np.random.default_rng(1)
    recent = np.interp(rng.random(150), np.linspace(0, 1, len(reference)), reference) + shift
    metrics = ServiceMetrics()
    metrics.use_model(MODEL, ood)
    for score in recent:
        metrics.answered(entry(score=float(score)))
        metrics.answered(entry(score=9.0, digest="of another model"))
    assert metrics.drift is not None
    statistic, chance = metrics.drift
    many = np.interp(np.linspace(0, 1, 20_001), np.linspace(0, 1, len(reference)), reference)
    assert statistic == pytest.approx(ks_2samp(recent, many).statistic, abs=2e-3)
    assert chance == pytest.approx(kstwobign.sf(statistic * np.sqrt(150 * 24 / 174)))
    assert (chance < 0.001) is drifts
    metrics.use_model(MODEL, None)
    assert metrics.drift is None


def test_the_driver_tells_the_memory_of_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory() == []
    for answer, found in (
        (
            "echo '0, 1024, 81559'; echo '1, 3, 81559'",
            [("0", 1 << 30, 81559 << 20), ("1", 3 << 20, 81559 << 20)],
        ),
        ("echo '0, [N/A], [N/A]'", []),
        ("exit 9", []),
    ):
        tool.write_text(f"#!/bin/sh\n{answer}\n")
        tool.chmod(0o755)
        assert gpu_memory() == found
    metrics = ServiceMetrics()
    tool.write_text("#!/bin/sh\necho '0, 1024, 81559'\n")
    metrics.looked({}, None)
    found_text = parsed(metrics.text())
    assert found_text['wsi_ncmi_gpu_memory_used_bytes{gpu="0"}'] == 1 << 30


def test_the_loopback_tells_the_same(tmp_path: Path) -> None:
    metrics = ServiceMetrics()
    with listening(metrics, 0) as port:
        address = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{address}/metrics", timeout=5) as response:
            assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            found = parsed(response.read().decode())
        assert "wsi_ncmi_queue_age_seconds" in found
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/", timeout=5)
        with pytest.raises(InputError, match=f"Port {port} can't be listened on"), listening(metrics, port):
            pass
        with socket.socket() as other, pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", port))  # who listens everywhere would hear it


def test_a_full_disk_costs_the_metrics_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = ServiceMetrics()
    file = tmp_path / "wsi.prom"
    metrics.write(file)
    parsed(file.read_text())
    metrics.write(tmp_path / "gone" / "wsi.prom")
    assert "can't be written" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["wsi.prom"]
