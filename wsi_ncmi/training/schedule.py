"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

__all__ = ["learning_rate_at"]


def learning_rate_at(step: int, total_steps: int, *, peak: float, warmup: float) -> float:
    """Linear warm-up to the peak, then half a cosine towards zero (Loshchilov & Hutter, arXiv 1608.03983).

    Args:
        step: Zero-based optimiser step.
        total_steps: Steps of the whole run.
        peak: Highest rate.
        warmup: Share of the steps that rise, in ``[0, 1)``.

    Returns:
        The rate of this step; never zero before the end, so that no step is idle.
    """
    rising = math.ceil(warmup * total_steps)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    share = (step - rising) / max(1, total_steps - rising)
    return peak * 0.5 * (1.0 + math.cos(math.pi * share))
