"""Models take the bags that people hold, and give logits; padding changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil import (
    BagBatch,
    GatedABMIL,
    MeanPool,
    build_aggregator,
    build_model,
    list_models,
    model_config,
)

NAMES = [info.name for info in list_models()]
SMALL = {"hidden": 16}
SIZES = (7, 1, 12, 3)


def small_settings(name: str) -> dict[str, int]:
    return {} if name in ("dsmil", "linear") else SMALL


def small(name: str, num_classes: int | None = 3, **settings):
    return build_model(name, 8, num_classes, **small_settings(name), **settings)


@pytest.fixture(scope="module")
def bags() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 8, generator=generator) for size in SIZES]


def padded(bags) -> torch.Tensor:
    """Side by side; what is behind the end of a bag would spoil any sum."""
    found = torch.full((len(bags), max(map(len, bags)), 8), float("nan"))
    for row, bag in zip(found, bags, strict=True):
        row[: len(bag)] = bag
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_gives_what_the_bags_give_one_by_one(name, bags):
    torch.manual_seed(0)
    model = small(name).eval()
    alone = [model(bag, return_attention=True) for bag in bags]
    logits = torch.cat([logits for logits, _ in alone])
    assert logits.shape == (4, 3)
    kept = torch.arange(max(SIZES)) < torch.tensor(SIZES).unsqueeze(1)
    layouts = {
        "list": (bags, {}),
        "lengths": (padded(bags), {"lengths": torch.tensor(SIZES)}),
        "mask": (padded(bags), {"mask": kept}),
        "packed": (torch.cat(bags), {"lengths": list(SIZES)}),
        "numpy": (padded(bags).numpy(), {"mask": kept.numpy()}),
    }
    for layout, (features, more) in layouts.items():
        found, attention = model(features, **more, return_attention=True)
        torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-6, msg=layout)
        each = attention
        if layout in ("lengths", "mask", "numpy"):
            assert (attention[~kept] == 0).all()
            each = [row[: len(bag)] for row, bag in zip(attention, bags, strict=True)]
        elif layout == "packed":
            each = attention.split(list(SIZES))
        for weights, (_, expected) in zip(each, alone, strict=True):
            torch.testing.assert_close(weights, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_learns_in_a_plain_loop(name, bags):
    torch.manual_seed(0)
    model, criterion, y = small(name), nn.CrossEntropyLoss(), torch.tensor([0, 1, 2, 1])
    optimiser = torch.optim.SGD(model.parameters(), 0.01)
    before = model.head.weight.detach().clone()
    logits, own = model(bags, labels=y)
    assert own.ndim == 0
    (criterion(logits, y) + own).backward()
    optimiser.step()
    assert not torch.equal(before, model.head.weight)
    assert model(bags).shape == (4, 3)  # in training without labels: the terms that need them are left out


@pytest.mark.parametrize("name", NAMES)
def test_the_classifier_changes_neither_the_aggregator_nor_the_callers_random_numbers(name, bags):
    config = model_config(name, **small_settings(name))
    torch.manual_seed(3)
    bare, after_bare = build_aggregator(config, 8, 3).eval(), torch.rand(1)
    torch.manual_seed(3)
    model, after = build_model(config, 8, 3).eval(), torch.rand(1)
    assert torch.equal(after_bare, after)
    assert set(model.state_dict()) - set(bare.state_dict()) == {"head.weight", "head.bias"}
    batch = BagBatch.pack(bags)
    assert torch.equal(bare(batch).embedding, model(batch).embedding)
    torch.testing.assert_close(model.head(bare(batch).embedding), model(bags))


def test_a_class_is_called_with_features_and_classes():
    model = GatedABMIL(1024, 2)
    assert model(torch.randn(5, 1024)).shape == (1, 2)
    assert GatedABMIL(1024)(torch.randn(5, 1024)).shape == (1, 128)
    assert model(np.zeros((5, 1024), np.float16)).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_bags_and_models_of_every_precision(name, bags):
    model, coords = small(name, np.int64(3)).eval(), [torch.zeros(len(bag), 2) for bag in bags]
    more = {"coords": coords} if model.needs_coordinates else {}
    expected = model(bags, lengths=None, **more)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in (torch.float16, torch.float64):
            found = model([bag.to(dtype) for bag in bags], **more)
            torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)
    for dtype in (torch.float16, torch.bfloat16):
        cast = small(name).eval()
        cast.load_state_dict(model.state_dict())
        torch.testing.assert_close(cast.to(dtype)(bags, **more).float(), expected, rtol=0.1, atol=0.1)
        if dtype == torch.bfloat16:
            cast.train()(bags, labels=list(np.array([0, 1, 2, 0])), **more)[0].sum().backward()


def test_a_mask_may_have_holes(bags):
    model = small("abmil").eval()
    mask = torch.ones(1, 7, dtype=torch.int64)
    mask[0, 2] = 0
    torch.testing.assert_close(model(bags[0][None], mask=mask), model(bags[0][[0, 1, 3, 4, 5, 6]]))


def test_places_go_with_their_tiles(bags):
    model = build_model("vit", 8, 2, hidden=16, vit={"alibi": True}).eval()
    places = [torch.randint(0, 1000, (len(bag), 2)) for bag in bags]
    alone = torch.cat([model(bag, coords=place) for bag, place in zip(bags, places, strict=True)])
    rows = torch.zeros(4, max(SIZES), 2, dtype=torch.int64)
    for row, place in zip(rows, places, strict=True):
        row[: len(place)] = place
    torch.testing.assert_close(model(bags, coords=places), alone, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model(padded(bags), lengths=SIZES, coords=rows), alone, rtol=1e-4, atol=1e-6)


def test_an_aggregator_written_for_0_1_is_used_as_it_is(bags):
    class Old(MeanPool):
        def forward(self, batch, labels=None):
            return super().forward(batch, labels)

    assert Old(8)(BagBatch.pack(bags)).embedding.shape == (4, 128)


X = torch.zeros(3, 8)
WRONG = {
    "a text": (("slide.h5",), {}, "tensor or numpy array, got 'slide.h5'"),
    "nothing": ((None,), {}, "got None"),
    "one vector": ((X[0],), {}, r"got shape \(8,\)"),
    "four dimensions": ((X[None, None],), {}, r"got shape \(1, 1, 3, 8\)"),
    "whole numbers": ((X.long(),), {}, "floating-point numbers, got shape .* of int64"),
    "names": ((np.array(["a"]),), {}, "tensor or numpy array"),
    "another width": ((X[:, :5],), {}, "width 5 but the model was made for 8"),
    "NaN": ((X + torch.tensor(float("nan")),), {}, "3 of 3 instances hold NaN"),
    "an empty bag": ((X[:0],), {}, "empty bag"),
    "an empty list": (([],), {}, "at least one bag"),
    "an empty bag in a list": (([X, X[:0]],), {}, "Bag 1 of the batch"),
    "a list of numbers": (([1.0, 2.0],), {}, "Bag 0 of the list"),
    "both": ((X[None],), {"lengths": [3], "mask": [[1, 1, 1]]}, "give one of them"),
    "too long": ((X[None],), {"lengths": [4]}, "each must be 1 to 3"),
    "no length": ((X[None],), {"lengths": [0]}, "each must be 1 to 3"),
    "too few lengths": ((X[None],), {"lengths": [3, 3]}, r"must be \(1,\)"),
    "lengths with a point": ((X[None],), {"lengths": torch.tensor([3.0])}, "one whole number a bag"),
    "lengths in words": ((X[None],), {"lengths": "three"}, "The lengths must be"),
    "lengths that don't add up": ((X,), {"lengths": [1, 1]}, "sum to the instances"),
    "mask of another shape": ((X[None],), {"mask": torch.ones(1, 2)}, r"The mask must be \(1, 3\)"),
    "mask of a single bag": ((X,), {"mask": torch.ones(3)}, "leave it out for a single bag"),
    "mask of a list": (([X],), {"mask": torch.ones(1, 3)}, "A list of bags has no padding"),
    "empty mask": ((X[None],), {"mask": torch.zeros(1, 3, dtype=torch.bool)}, "no empty bag"),
    "labels of other classes": ((X,), {"labels": [3]}, "number the classes from 0 to 2"),
    "labels to ignore": ((X,), {"labels": [-100]}, "number the classes from 0 to 2"),
    "sparse": ((X.to_sparse(),), {}, r"must be \(N, D\)"),
    "too many labels": ((X,), {"labels": [1, 0]}, r"The labels must be \(1,\)"),
    "names for labels": ((X,), {"labels": ["LUAD"]}, "The labels must be"),
    "lengths by position": ((X[None], [3]), {}, "by name: lengths="),
    "places of other bags": ((X,), {"coords": torch.zeros(2, 2)}, r"coordinates must be \(3, 2\)"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_input_is_one_sentence(fault):
    arguments, more, message = WRONG[fault]
    with pytest.raises(InputError, match=message):
        small("abmil")(*arguments, **more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("abmill", 8, 2), "did you mean 'abmil'"),
        (("abmil", "8", 2), "in_features, is a whole number of at least 1, got '8'"),
        (("abmil", 8, 1), "number of classes is a whole number of at least 2, got 1"),
        (("abmil", 8, 2.0), "got 2.0"),
        (("clam_sb", 8), "parts for each class, is a whole number of at least 2, got None"),
        ((GatedABMIL, 8, 2), "by its name or its config"),
    ],
)
def test_a_model_that_can_t_be_built(arguments, message):
    with pytest.raises(InputError, match=message):
        build_model(*arguments)
