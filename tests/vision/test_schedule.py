"""The rate equals that of PyTorch's schedulers."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from wsi_ncmi.vision import RecipeConfig
from wsi_ncmi.vision.loop import rate_at

STEPS = 7


def test_steps_equal_multi_step_lr():
    recipe = RecipeConfig(epochs=200, warmup_epochs=0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [60, 120, 160], gamma=0.2)
    for epoch in range(200):
        (rate,) = {rate_at(epoch * STEPS + step, STEPS, recipe) for step in range(STEPS)}
        assert rate == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_cosine_equals_cosine_annealing_lr():
    recipe = RecipeConfig(epochs=10, warmup_epochs=0, schedule="cosine", learning_rate=0.3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10 * STEPS)
    for step in range(10 * STEPS):
        assert rate_at(step, STEPS, recipe) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_warm_up_rises_linearly_to_the_peak(schedule):
    recipe = RecipeConfig(epochs=10, warmup_epochs=1.5, schedule=schedule)
    rising = [rate_at(step, STEPS, recipe) for step in range(11)]
    assert rising == pytest.approx([0.1 * (step + 1) / 11 for step in range(11)])
    assert rate_at(11, STEPS, recipe) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 2, "warmup_epochs": 2}, "warmup_epochs must be below epochs"),
        ({"momentum": 0.0}, "nesterov needs a momentum"),
        ({"milestones": (1.5,)}, "less than 1"),
    ],
)
def test_a_recipe_that_can_not_be_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        RecipeConfig(**values)
