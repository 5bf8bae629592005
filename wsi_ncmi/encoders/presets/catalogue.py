"""All presets by key."""

from __future__ import annotations

import difflib

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.encoders.presets import bioptimus, histai, imagenet, kaiko, mahmood_lab, others, owkin, paige
from wsi_ncmi.encoders.presets.preset import Preset

__all__ = ["PRESETS", "find_preset", "near_presets"]

_ROOMS = (imagenet, mahmood_lab, paige, bioptimus, owkin, histai, kaiko, others)
PRESETS: dict[str, Preset] = {preset.key: preset for room in _ROOMS for preset in room.PRESETS}


def find_preset(key: str) -> Preset:
    """The preset of a key.

    Raises:
        InputError: There is none, with the nearest keys.
    """
    if key in PRESETS:
        return PRESETS[key]
    near = near_presets(key)
    hint = f"did you mean {' or '.join(near)}?" if near else "wsi-ncmi encoders list names them."
    raise InputError(f"There is no preset {key!r}; {hint}")


def near_presets(key: str) -> list[str]:
    """Keys like ``key``, nearest first, whatever its case and however its words are joined."""
    plain = {_plain(known): known for known in PRESETS}
    found = [plain[match] for match in difflib.get_close_matches(_plain(key), plain, n=3, cutoff=0.6)]
    starts = [known for text, known in plain.items() if _plain(key) and text.startswith(_plain(key))]
    return list(dict.fromkeys((*starts, *found)))[:3]


def _plain(key: str) -> str:
    return "".join(sign for sign in key.lower() if sign.isalnum())
