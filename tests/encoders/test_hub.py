"""Fetching, against a hub of our own on the loopback device."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import threading

import pytest
import torch
from safetensors.torch import load_file, save

from wsi_ncmi.core.errors import InputError, WsiNcmiError
from wsi_ncmi.encoders import load_encoder
from wsi_ncmi.encoders.architectures import build_architecture
from wsi_ncmi.encoders.presets import presets
from wsi_ncmi.encoders.weights_import import fetch_weights
from wsi_ncmi.encoders.zoo_fetch import fetch_snapshot

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


@pytest.mark.parametrize(
    ("address", "fetch", "name"),
    [
        ("http://127.0.0.1:9", fetch_snapshot, "midnight"),  # of files the hub's library tries again for long
        ("no address", fetch_weights, "virchow2"),
        ("http://[::1", fetch_snapshot, "midnight"),
    ],
)
def test_no_network_is_one_sentence(tmp_path, monkeypatch, address, fetch, name):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(WsiNcmiError, match=r"The hub gave no weights of .*, or ") as caught:
        fetch(name, tmp_path)
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


@pytest.fixture
def zoo_hub(hub, tmp_path_factory):
    """The loopback hub with a repository of transformers' layout at a commit."""
    from transformers import Dinov2Config, Dinov2Model

    source = tmp_path_factory.mktemp("source")
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=14
    )
    Dinov2Model(config).save_pretrained(source)
    (source / "LICENSE").write_text("its terms")
    (source / "modeling.py").write_text("raise SystemExit")
    (source / "picture.png").write_bytes(b"x")
    serve_repository(hub, "kaiko-ai/midnight", {path.name: path.read_bytes() for path in source.iterdir()})
    return hub


def serve_repository(hub, repository, files):
    siblings = [
        {"rfilename": name, "size": len(content)}
        | ({"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}}
           if name.endswith(".safetensors") else {})
        for name, content in files.items()
    ]  # fmt: skip
    answer = json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()
    for revision in ("main", COMMIT):
        hub.files[f"/api/models/{repository}/revision/{revision}?blobs=true"] = answer
    hub.files[f"/api/models/{repository}?blobs=true"] = answer
    for name, content in files.items():
        hub.files[f"/{repository}/resolve/{COMMIT}/{name}"] = content


def test_a_snapshot_is_fetched_pinned_hashed_and_built(zoo_hub, tmp_path):
    made = fetch_snapshot("midnight", tmp_path)
    assert made.entry.source == f"hub:kaiko-ai/midnight@{COMMIT}"
    assert (made.entry.encoder, made.entry.licence) == ("lazyslide:midnight", "MIT")
    assert made.entry.parameters == sum(
        tensor.numel() for tensor in load_file(tmp_path / "lazyslide_midnight" / "model.safetensors").values()
    )
    assert made.notes == (
        "Licence of lazyslide:midnight: MIT.",
        "The preset midnight12k is the same network, checked here: --encoder midnight12k.",
    )
    # No code and no picture: only what the package reads, at the commit that the branch was.
    files = tmp_path / "lazyslide_midnight"
    assert {path.name for path in files.iterdir()} == {"LICENSE", "config.json", "model.safetensors"}
    assert json.loads(made.path.read_text())["files"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.iterdir()
    }
    assert all("/resolve/main/" not in path for _, path, _ in zoo_hub.asked)
    asked = len(zoo_hub.asked)
    assert fetch_snapshot("midnight", tmp_path) is None
    assert load_encoder("lazyslide:midnight", weights_dir=tmp_path).info.embed_dim == 32
    assert len(zoo_hub.asked) == asked
    (files / "config.json").write_text("{}")
    assert fetch_snapshot("midnight", tmp_path) is not None  # what was damaged is fetched again, unasked


def test_other_bytes_than_the_hub_states_are_refused(zoo_hub, tmp_path):
    place = f"/kaiko-ai/midnight/resolve/{COMMIT}/model.safetensors"
    content = bytearray(zoo_hub.files[place])
    content[-3] ^= 4
    zoo_hub.files[place] = bytes(content)
    with pytest.raises(InputError, match=r"other bytes than it states .*model\.safetensors was changed"):
        fetch_snapshot("midnight", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_code_is_fetched_only_when_commit_and_trust_are_said(zoo_hub, tmp_path):
    serve_repository(zoo_hub, "wearewaiv/phaet", {"config.json": b"{}", "modeling.py": b"x = 1"})
    words = rf"runs the code of its repository \(modeling\.py\): read it at .*/tree/{COMMIT}, then say"
    for more in (
        {},
        {"trust_remote_code": True},
        {"revision": COMMIT},
        {"revision": "main", "trust_remote_code": True},
    ):
        with pytest.raises(InputError, match=words):
            fetch_snapshot("phaet", tmp_path, **more)
    assert not any(path.endswith("modeling.py") for _, path, _ in zoo_hub.asked)
    with pytest.raises(InputError, match="can't build lazyslide:phaet"):  # it is no model
        fetch_snapshot("phaet", tmp_path, revision=COMMIT, trust_remote_code=True)
    assert not list(tmp_path.glob("lazyslide*"))


def test_a_snapshot_needs_the_hub_and_access(zoo_hub, tmp_path, monkeypatch):
    zoo_hub.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(InputError, match=r"refused lazyslide:midnight .*Ask for access at https://hugg"):
        fetch_snapshot("midnight", tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="fetch it on another machine and copy its weights folder"):
        fetch_snapshot("midnight", tmp_path)
