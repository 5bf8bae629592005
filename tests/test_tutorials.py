"""The Python of the tutorials runs from top to bottom, and does what its page says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import torch

TUTORIALS = Path(__file__).resolve().parents[1] / "docs" / "tutorials"


def run_blocks(page: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    blocks = re.findall(
        r"^( *)```python\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert blocks
    for _, text in blocks:
        exec(textwrap.dedent(text), names)
    return names


def test_ncmi_in_your_own_loop() -> None:
    names = run_blocks(TUTORIALS / "ncmi-in-your-loop.md")
    right = (names["probabilities"].argmax(1) == names["y"]).float().mean()
    assert right > 0.9  # the page says above 0.9; always the commonest class has 0.5
    assert torch.allclose(names["probabilities"].sum(1), torch.ones(240))
