"""One seed per purpose, so that drawing more numbers for one thing never shifts another."""

from __future__ import annotations

import hashlib

__all__ = ["derive_seed"]


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derives a seed that depends on the base seed and the purpose only.

    Args:
        seed: The run's seed.
        *purpose: What the numbers are for, for example ``"aggregator"`` or ``("order", epoch)``.

    Returns:
        An integer in ``[0, 2**63)``, equal on every machine and Python version.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
