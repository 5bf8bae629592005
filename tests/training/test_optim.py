"""The optimiser against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch

from wsi_ncmi.training import TrainingConfig
from wsi_ncmi.training.optim import FusedAdamW

OPTIONS = TrainingConfig(learning_rate=0.01, weight_decay=0.1)


def weights() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 3), (5,), (2, 5), (2,))
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def of_torch(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    matrices, vectors = parameters[0::2], parameters[1::2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1, fused=True)


def give_gradients(parameters: list[torch.nn.Parameter], step: int) -> None:
    for number, parameter in enumerate(parameters):
        generator = torch.Generator().manual_seed(10 * step + number)
        # The third one has none at the first steps, as a layer of a branch that isn't used yet.
        parameter.grad = (
            None if number == 2 and step < 2 else torch.randn(parameter.shape, generator=generator)
        )


def test_steps_are_those_of_torch_bit_for_bit() -> None:
    mine, theirs = weights(), weights()
    ours, reference = FusedAdamW(mine, OPTIONS), of_torch(theirs)
    for step in range(6):
        rate = 0.01 / (1 + step)
        ours.learning_rate = rate
        for group in reference.param_groups:
            group["lr"] = rate
        for parameters, optimizer in ((mine, ours), (theirs, reference)):
            give_gradients(parameters, step)
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    ours.zero_grad()
    assert all(p.grad is None for p in mine)


@pytest.mark.parametrize("begun", [0, 1, 3])  # also before a parameter had its first gradient
def test_a_checkpoint_of_torchs_optimiser_goes_on(begun: int) -> None:
    theirs = weights()
    reference = of_torch(theirs)
    for step in range(begun):
        give_gradients(theirs, step)
        reference.step()
    mine = copy.deepcopy(theirs)
    ours = FusedAdamW(mine, OPTIONS)
    ours.load_state_dict(reference.state_dict())
    again = copy.deepcopy(mine)
    from_ours = FusedAdamW(again, OPTIONS)
    from_ours.load_state_dict(ours.state_dict())
    for step in range(begun, 5):
        for parameters, optimizer in ((mine, ours), (theirs, reference), (again, from_ours)):
            give_gradients(parameters, step)
            optimizer.step()
    for a, b, c in zip(mine, theirs, again, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_a_scaled_step_that_overflows_is_left_out() -> None:
    parameters = weights()
    before = copy.deepcopy(parameters)
    optimizer, scaler = FusedAdamW(parameters, OPTIONS), torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))  # makes the scale, as a loss would
    for factor, moves in ((torch.inf, False), (4.0, True)):
        give_gradients(parameters, 3)
        for parameter in parameters:
            parameter.grad *= factor
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert all(torch.equal(a, b) != moves for a, b in zip(parameters, before, strict=True))
