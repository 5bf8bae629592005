"""The files that run and watch a service: flags that exist, metrics that are told, a check that restarts."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from wsi_ncmi.cli.app import app
from wsi_ncmi.service import metrics
from wsi_ncmi.service.metrics import ServiceMetrics

DOCKER = Path(__file__).resolve().parents[2] / "docker"


def commands() -> dict[str, list[str]]:
    compose = yaml.safe_load((DOCKER / "compose.watch.yaml").read_text())["services"]
    found = {
        name: [re.sub(r"\$\{MODEL:-(\w+)\}", r"\1", word) for word in each["command"]]
        for name, each in compose.items()
    }
    for unit in ("wsi-ncmi", "wsi-ncmi-batch"):
        (line,) = re.findall(
            r"(?m)^ExecStart=/opt/wsi-ncmi/bin/wsi-ncmi (.+)$",
            (DOCKER / "systemd" / f"{unit}.service").read_text(),
        )
        values = {"${INBOX}": "/slides", "${MODEL}": "/models/current", "${OUT}": "/out", "$FLAGS": "--top 3"}
        for name, value in values.items():
            line = line.replace(name, value)
        found[unit] = shlex.split(line)
    return found


@pytest.mark.parametrize("name", commands())
def test_the_program_takes_the_command(name: str, tmp_path: Path) -> None:
    words = [word.replace("/out", f"{tmp_path}/out") for word in commands()[name]]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2
    assert "There is no file or folder /slides" in ended.stderr


def test_the_watch_of_compose_is_shut_in_and_comes_again() -> None:
    services = yaml.safe_load((DOCKER / "compose.watch.yaml").read_text())["services"]
    base = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    for service, hardened in ((services["watch"], "extract"), (services["watch-cpu"], "cpu")):
        assert service["extends"] == {"file": "compose.yaml", "service": hardened}
        assert base[hardened]["read_only"] is True
        assert not {"read_only", "network_mode", "cap_drop", "user", "security_opt"} & set(service)
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][-2:] == ["wsi_ncmi.core.heartbeat", "--restart"]


def told(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(metrics, "gpu_memory", lambda: [("0", 1, 2)])
    service = ServiceMetrics()
    bounds: Any = SimpleNamespace(score_quantiles=(0.0, 1.0), slides=30)
    service.use_model({"name": "m", "version": "1", "digest": "d"}, SimpleNamespace(bounds=bounds))  # type: ignore[arg-type]
    for _ in range(20):
        service.answered(
            {"event": "answer", "model": {"digest": "d"}, "answer": {"status": "decided", "ood_score": 0.5}}
        )
    service.took("extraction", 1)
    service.looked({}, None)
    return service.text()


def test_alerts_and_board_ask_for_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    text = told(monkeypatch)
    rules = yaml.safe_load((DOCKER / "monitoring" / "alerts.yml").read_text())["groups"][0]["rules"]
    board = json.loads((DOCKER / "monitoring" / "grafana.json").read_text())
    asked = [rule["expr"] for rule in rules]
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [each["expr"] for each in board["annotations"]["list"]]
    for expression in asked:
        for name, labels in re.findall(r"(wsi_ncmi_[a-z_]+)(?:\{([a-z]+)!?=)?", expression):
            assert re.search(rf"(?m)^{name}(\{{.*)? ", text), name
            assert not labels or f'{name}{{{labels}="' in text, labels
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places)
