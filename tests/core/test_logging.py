"""Log lines for machines, and tokens that are in none of them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from wsi_ncmi.core.logging import FORMAT_VARIABLE, JsonLines, redact

TOKEN = "hf_" + "aB3" * 11


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        (f"GET with {TOKEN}.", {}, "GET with ***."),
        ("Authorization: Bearer abc.def-ghi_jkl=", {}, "Authorization: Bearer ***"),
        ("the word secret-of-mine", {"HF_TOKEN": " secret-of-mine\n"}, "the word ***"),
        ("cluster 0123456789abcdef", {"RAY_AUTH_TOKEN": "0123456789abcdef"}, "cluster ***"),
        ("a tile of 256 px", {"HF_TOKEN": "256"}, "a tile of 256 px"),  # too short to be a token
        ("timm/hf_hub and hf_hub_download", {}, "timm/hf_hub and hf_hub_download"),
    ],
)
def test_tokens_are_masked(text: str, environment: dict[str, str], expected: str) -> None:
    assert redact(text, environment) == expected


def test_a_json_line_holds_message_fields_and_error() -> None:
    try:
        raise ValueError(f"refused {TOKEN}")
    except ValueError:
        record = logging.LogRecord(
            "wsi_ncmi.x", logging.ERROR, "", 0, "%d of %s\nlost", (2, "µ"), sys.exc_info()
        )
    record.fields = {"done": 2}
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "wsi_ncmi.x", "2 of µ\nlost")
    assert line["done"] == 2
    assert line["time"].endswith("Z")
    assert "refused ***" in line["error"]
    assert TOKEN not in text


def test_every_line_of_a_verb_is_json_and_no_token_is_told(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The token is part of a path here, as it may be of an address in a library's message.
    ended = subprocess.run(
        [sys.executable, "-m", "wsi_ncmi", "--log-format", "json", "inventory", tmp_path / TOKEN, "--debug"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert TOKEN not in ended.stdout + ended.stderr
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert lines[-1]["exit_code"] == 2
    assert "***" in lines[-1]["message"]


def test_the_environment_chooses_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsi_ncmi.core.logging import is_json

    monkeypatch.setenv(FORMAT_VARIABLE, "JSON")
    assert is_json()
    monkeypatch.setenv(FORMAT_VARIABLE, "text")
    assert not is_json()
