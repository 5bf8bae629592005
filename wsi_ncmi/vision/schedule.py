"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from wsi_ncmi.vision.config import RecipeConfig

__all__ = ["rate_at"]


def rate_at(step: int, steps_per_epoch: int, recipe: RecipeConfig) -> float:
    """Rate of a step: linear warm-up, then steps or half a cosine.

    With ``step`` the rate is constant within an epoch and falls at the beginning of epoch ``milestone ·
    epochs`` (60, 120 and 160 of 200 by default); with ``cosine`` (Loshchilov & Hutter, arXiv 1608.03983) it
    falls with every step from the end of the warm-up to zero.

    Args:
        step: Zero-based optimiser step of the run.
        steps_per_epoch: Steps of an epoch.
        recipe: The recipe.
    """
    rising = math.ceil(recipe.warmup_epochs * steps_per_epoch)
    if step < rising:
        return recipe.learning_rate * (step + 1) / rising
    if recipe.schedule == "cosine":
        share = (step - rising) / (recipe.epochs * steps_per_epoch - rising)
        return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))
    epoch = step // steps_per_epoch
    passed = sum(epoch >= round(milestone * recipe.epochs) for milestone in recipe.milestones)
    return recipe.learning_rate * float(recipe.gamma**passed)
