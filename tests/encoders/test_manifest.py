from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.files import sha256_file
from wsi_ncmi.encoders.encoder_files import find_weights
from wsi_ncmi.encoders.weights import read_weights
from wsi_ncmi.encoders.weights_folder import (
    ManifestEntry,
    check_listed_file,
    find_entry,
    read_manifest,
    record_entry,
    verify_weights_folder,
)


def _entry(folder, encoder="uni_v1", file="uni_v1.safetensors"):
    save_file({"a": torch.arange(4.0)}, folder / file)
    entry = ManifestEntry(
        file=file, encoder=encoder, sha256=sha256_file(folder / file), n_bytes=(folder / file).stat().st_size,
        source="file:x.bin", source_sha256="0" * 64, licence="MIT", date="2026-01-01", parameters=4,
    )  # fmt: skip
    record_entry(folder, entry)
    return entry


def test_round_trip_and_replacement(tmp_path):
    assert read_manifest(tmp_path) == ()
    first, second = _entry(tmp_path), _entry(tmp_path, "timm:resnet18", "timm_resnet18.safetensors")
    assert read_manifest(tmp_path) == (first, second)
    newer = dataclasses.replace(first, date="2026-02-02")
    record_entry(tmp_path, newer)
    assert read_manifest(tmp_path) == (second, newer)
    assert find_entry(tmp_path, "uni_v1") == newer
    assert find_entry(tmp_path, "timm:resnet18") == find_entry(tmp_path, "resnet18") == second
    assert find_entry(tmp_path, "resnet34") is None


def test_processes_that_record_at_once_lose_nothing(tmp_path):
    entry = _entry(tmp_path)
    code = (
        "import sys, json, pathlib; from wsi_ncmi.encoders.weights_folder import ManifestEntry, record_entry\n"
        "entry = json.loads(sys.argv[2])\n"
        "for n in range(20):\n"
        "    name = f'{sys.argv[3]}_{n}'\n"
        "    record_entry(pathlib.Path(sys.argv[1]), ManifestEntry(**{**entry, 'encoder': name, 'file': name}))\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), json.dumps(dataclasses.asdict(entry))]
    running = [subprocess.Popen([*arguments, name]) for name in ("a", "b", "c")]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(read_manifest(tmp_path)) == 61
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "uni_v1.safetensors"]


def test_the_manifest_comes_before_names(tmp_path):
    _entry(tmp_path, "uni_v1", "a.safetensors")
    save_file({"b": torch.zeros(1)}, tmp_path / "uni_v1.safetensors")
    assert find_weights(tmp_path, "uni_v1").name == "a.safetensors"


def test_a_changed_file_is_refused_at_load_and_named_by_verify(tmp_path):
    entry = _entry(tmp_path)
    path = tmp_path / entry.file
    check_listed_file(path)
    assert [problem for _, problem in verify_weights_folder(tmp_path)] == [""]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"refused: its SHA-256 is not that of the manifest.*uni_v1 again"):
        read_weights(path)
    path.write_bytes(content + b"x")
    with pytest.raises(InputError, match="bytes, not the"):
        read_weights(path)
    path.unlink()
    assert [problem for _, problem in verify_weights_folder(tmp_path)] == ["it is missing"]


def test_files_that_are_not_listed_load_as_ever(tmp_path):
    _entry(tmp_path)
    save_file({"b": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert set(read_weights(tmp_path / "other.safetensors")[""]) == {"b"}


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"schema": 2, "files": []}', '{"schema": 1}', '{"schema": 1, "files": [{"file": "a"}]}',
     '{"schema": 1, "files": [ESCAPE]}'],
)  # fmt: skip
def test_a_bad_manifest_is_one_sentence(tmp_path, content):
    entry = {**dataclasses.asdict(_entry(tmp_path)), "file": "../elsewhere.safetensors"}
    (tmp_path / "manifest.json").write_text(content.replace("ESCAPE", json.dumps(entry)))
    with pytest.raises(InputError, match=r"manifest\.json can't be read") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_folder_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no weights folder"):
        verify_weights_folder(tmp_path / "absent")
