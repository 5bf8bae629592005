"""Fetching, against a hub of our own on the loopback device."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import threading

import pytest
import torch
from safetensors.torch import save

from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.weights_import import fetch_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "s3cret" * 5


class _Hub(http.server.BaseHTTPRequestHandler):
    files: dict[str, bytes]
    gated = False
    broken = False
    asked: list[tuple[str, str, str | None]]

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body):
        type(self).asked.append((self.command, self.path, self.headers.get("Authorization")))
        if self.broken:
            return self._refuse(503, None)
        if self.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401 if self.headers.get("Authorization") is None else 403, "GatedRepo")
        content = self.files.get(self.path)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
        return None

    def _refuse(self, status, code):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    preset = presets()["virchow2"]
    arguments = {**preset.architecture.arguments, "depth": 1, "embed_dim": 32, "num_heads": 2}
    architecture = dataclasses.replace(preset.architecture, arguments=arguments)
    monkeypatch.setitem(presets(), "virchow2", dataclasses.replace(preset, architecture=architecture))
    network = build_architecture(architecture)
    state = {key: torch.ones(value.shape) for key, value in network.state_dict().items()}
    served = type("Hub", (_Hub,), {"files": {}, "asked": []})
    served.content = save(state)
    served.files["/paige-ai/Virchow2/resolve/main/model.safetensors"] = served.content
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetch_downloads_checks_and_records(hub, tmp_path, caplog, capfd):
    hub.gated = True
    made = fetch_weights("virchow2-cls", tmp_path / "w")
    assert made.entry.encoder == "virchow2"
    assert made.entry.source == f"hub:paige-ai/Virchow2/model.safetensors@{COMMIT}"
    assert made.entry.source_sha256 == hashlib.sha256(hub.content).hexdigest()
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == [
        "manifest.json",
        "virchow2.safetensors",
    ]
    assert {sent for _, _, sent in hub.asked} == {f"Bearer {TOKEN}"}
    said = caplog.text + "".join(capfd.readouterr()) + (tmp_path / "w" / "manifest.json").read_text()
    assert TOKEN not in said


def test_what_is_there_is_not_fetched_again(hub, tmp_path):
    made = fetch_weights("virchow2", tmp_path)
    asked = len(hub.asked)
    assert fetch_weights("virchow2", tmp_path) is None
    assert len(hub.asked) == asked
    assert fetch_weights("virchow2", tmp_path, overwrite=True) is not None
    whole = made.path.read_bytes()
    made.path.write_bytes(b"x")  # what was damaged is fetched again, unasked
    assert fetch_weights("virchow2", tmp_path) is not None
    assert made.path.read_bytes() == whole


def test_the_next_file_name_is_tried(hub, tmp_path):
    del hub.files["/paige-ai/Virchow2/resolve/main/model.safetensors"]
    with pytest.raises(InputError, match=r"has none of the files model\.safetensors, pytorch_model\.bin"):
        fetch_weights("virchow2", tmp_path)
    hub.files["/paige-ai/Virchow2/resolve/v1/pytorch_model.bin"] = hub.content
    with pytest.raises(InputError, match=r"damaged|can't be read"):  # safetensors under a pickle's name
        fetch_weights("virchow2", tmp_path, revision="v1")
    assert not list(tmp_path.glob("*.safetensors"))
    assert not list(tmp_path.glob(".fetch-*"))


@pytest.mark.parametrize("token", [None, "hf_another"])
def test_gated_weights_explain_how_to_get_access(hub, tmp_path, monkeypatch, token):
    hub.gated = True
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(
        InputError, match=r"refused virchow2 .*Ask for access at https://huggingface\.co/paige-ai"
    ) as caught:
        fetch_weights("virchow2", tmp_path)
    assert "\n" not in str(caught.value)
    assert token is None or token not in str(caught.value)


def test_a_hub_that_fails_is_one_sentence(hub, tmp_path, monkeypatch):
    hub.broken = True
    monkeypatch.setattr("time.sleep", lambda _: None)  # retries without waiting
    with pytest.raises(WsiNcmiError, match="gave no weights of virchow2") as caught:
        fetch_weights("virchow2", tmp_path)
    assert "\n" not in str(caught.value)


def test_offline_means_offline(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set.*encoders import FILE --as virchow2"):
        fetch_weights("virchow2", tmp_path)
    assert hub.asked == []


def test_weights_that_no_hub_has(tmp_path):
    with pytest.raises(InputError, match=r"ctranspath can't be fetched: Download ctranspath\.pth"):
        fetch_weights("ctranspath", tmp_path)
    with pytest.raises(InputError, match="no preset"):
        fetch_weights("timm:resnet18", tmp_path)
