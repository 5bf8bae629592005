"""The NCMI criterion: against a slow reference, at the edges, and in every form."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
import sys
import warnings

import pytest
import torch

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import PRESETS, build_loss, loss_config
from wsi_ncmi.losses import functional as f
from wsi_ncmi.losses.fixed_centroids import code_word_scores, symbols_needed
from wsi_ncmi.losses.ncmi import NCMILoss

FORMS = [
    {"preset": "paper"},
    {"preset": "ratio"},
    {"preset": "ratio", "centring": True},
    {"preset": "log"},
    {"preset": "log_reverse"},
    {"preset": "ratio", "ratio": "batch"},
    {"preset": "ratio", "ratio": "batch", "separation": "pairwise"},
    {"preset": "ratio", "ratio": "sample", "separation": "pairwise"},
    {"preset": "ratio", "code_words": "simplex"},
    {"preset": "ratio", "code_words": "means"},
    {"preset": "ratio", "code_words": "learned"},
    {"preset": "log", "symbol_map": "softmax", "code_scale": 3.0},
    {"preset": "log_reverse", "power": 0.7},
    {"preset": "log_reverse", "symbol_map": "softmax", "code_words": "learned"},
    {"preset": "ratio", "power": 1.0},
    {"preset": "ratio", "power": 0.0, "code_words": "means", "means_update": "running"},
    {"preset": "log", "power": 0.5, "code_words": "means", "means_update": "bank", "bank_size": 7},
]


def _softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def _sigmax(u: list[float]) -> list[float]:
    sigma = [math.exp(-_softplus(-x)) for x in u]
    return [x / sum(sigma) for x in sigma]


def _paper_loop(batches: list[list[list[float]]], labels: list[list[int]], classes: int) -> list[float]:
    """The public code's training arithmetic as the design notes list it, sample by sample."""
    width = len(batches[0][0])
    words = [_sigmax([(10.0 if i == c else 0.0) + 1e-6 for i in range(width)]) for c in range(classes)]
    centre, losses = None, []
    for batch, y in zip(batches, labels, strict=True):
        mean = [sum(row[i] for row in batch) / len(batch) for i in range(width)]
        centre = (
            mean if centre is None else [0.9999 * c + 0.0001 * m for c, m in zip(centre, mean, strict=True)]
        )
        total = 0.0
        for row, label in zip(batch, y, strict=True):
            centred = [x - c for x, c in zip(row, centre, strict=True)]
            norm = math.sqrt(sum(x * x for x in centred))
            p = _sigmax([x / norm / 0.2 for x in centred])
            cmi = sum(a * math.log(a / b) for a, b in zip(p, words[label], strict=True))
            sep = 0.0
            for other in range(classes):
                if other != label:
                    sep += sum(b * math.log(b / a) for a, b in zip(p, words[other], strict=True))
            total += cmi / (sep / classes)
        losses.append(total / len(batch))
    return losses


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_paper_preset_equals_the_slow_loop(classes):
    generator = torch.Generator().manual_seed(classes)
    batches = [torch.randn(5, 12, generator=generator, dtype=torch.float64) * 3 + 1 for _ in range(3)]
    labels = [torch.randint(classes, (5,), generator=generator) for _ in range(3)]
    torch.set_default_dtype(torch.float64)
    try:
        criterion = NCMILoss(classes, 12, preset="paper")
    finally:
        torch.set_default_dtype(torch.float32)
    expected = _paper_loop([b.tolist() for b in batches], [y.tolist() for y in labels], classes)
    got = [criterion(z, y).item() for z, y in zip(batches, labels, strict=True)]
    assert got == pytest.approx(expected, rel=1e-6)


def test_a_symbol_of_the_default_weighs_alike_whatever_their_number():
    pulls = []
    for symbols in (8, 32):  # the words of 32 symbols repeat those of 8
        criterion = NCMILoss(3, None, symbols=symbols)
        u = torch.zeros(6, symbols, requires_grad=True)
        criterion(u, torch.arange(6) % 3).backward()
        pulls.append(u.grad[:, :8])
        assert criterion.tau == 2 / symbols
    assert torch.allclose(*pulls, atol=1e-7)
    assert pulls[0].abs().max() > 1e-3


@pytest.mark.parametrize("preset", ["log", "log_reverse"])
def test_log_form_is_concentration_minus_a_soft_minimum(preset):
    criterion = NCMILoss(3, 6, preset=preset, tau=0.3).double().eval()
    z, y = torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 1])
    d, tau = criterion.distances(z), criterion.tau
    expected = sum(
        d[i, y[i]].item() / tau + math.log(sum(math.exp(-x / tau) for x in d[i].tolist())) for i in range(5)
    )
    assert criterion(z, y).item() == pytest.approx(expected / 5, rel=1e-9)


def test_batch_pairwise_form_equals_the_functional_ratio():
    criterion = NCMILoss(3, 6, preset="ratio", ratio="batch", separation="pairwise").double().eval()
    z, y = torch.randn(7, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 1, 0, 2])
    log_p = criterion.log_symbols(z)
    expected = f.ncmi(log_p, y, criterion.log_centroids, "pairwise")
    assert criterion(z, y).item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gradients_pass_gradcheck(form):
    torch.manual_seed(0)
    criterion = NCMILoss(3, 5, **form).double().eval()
    z = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 2, 0, 1, 1])
    assert torch.autograd.gradcheck(lambda a: criterion(a, y), z)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_batches_of_one_slide_train(form):
    torch.manual_seed(0)
    criterion = NCMILoss(3, 8, **form)
    for step in range(6):
        z = (torch.randn(1, 8) * 3).requires_grad_()
        loss = criterion(z, torch.tensor([step % 3]))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(z.grad).all()
        assert z.grad.abs().max() < 1e3


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_missing_class_and_a_zero_embedding_do_no_harm(form):
    criterion = NCMILoss(4, 8, **form)
    z = torch.zeros(3, 8, requires_grad=True)
    loss = criterion(z, torch.tensor([1, 1, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(criterion.log_proba(z)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_scores_of_a_hundred_in_half_precision_stay_finite(form, dtype):
    # Scores go in as they are: no projection may tame them.
    criterion = NCMILoss(4, None, **(form | {"symbols": 8}))
    z = torch.where(torch.rand(6, 8) > 0.5, 100.0, -100.0).to(dtype).requires_grad_()
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16 if dtype is torch.float16 else dtype):
        loss = criterion(z, y)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
    # The half-precision copy of the scores gives what float32 gives: nothing is rounded on the way.
    again = NCMILoss(4, None, **(form | {"symbols": 8}))
    assert loss.item() == pytest.approx(again(z.detach().float(), y).item(), rel=1e-5)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_two_to_a_thousand_classes(preset, classes):
    criterion = NCMILoss(classes, 1024, preset=preset, class_counts=[9] * classes)
    z = torch.randn(8, 1024, requires_grad=True)
    y = torch.arange(8) % classes
    loss = criterion(z, y)
    loss.backward()
    assert torch.isfinite(loss)
    assert criterion.predict_proba(z).shape == (8, classes)
    # A sample at a code word is nearest to that code word.
    nearest = f.kl_to_centroids(criterion.log_centroids, criterion.log_centroids).argmin(1)
    assert nearest.tolist() == list(range(classes))


def test_code_words_are_what_they_are_called():
    for classes, symbols in ((2, 8), (7, 8), (8, 16), (1000, 1024)):
        assert symbols_needed("orthogonal", classes, 8) == symbols
        words = code_word_scores("orthogonal", classes, symbols, 3.0)
        assert torch.equal(words @ words.T, 9.0 * symbols * torch.eye(classes, dtype=torch.float64))
        assert words.sum(1).abs().max() == 0
    simplex = code_word_scores("simplex", 4, 6, 2.0)
    gram = simplex @ simplex.T / 4
    assert torch.allclose(gram, torch.eye(4).double() * (4 / 3) - 1 / 3)
    identity = code_word_scores("identity", 3, 5, 10.0)
    assert identity[1].tolist() == pytest.approx([1e-6, 10 + 1e-6, 1e-6, 1e-6, 1e-6])
    with pytest.raises(InputError, match="3 symbols can't tell 4 classes apart"):
        code_word_scores("identity", 4, 3, 10.0)


def _words_of(criterion: NCMILoss) -> torch.Tensor:
    words = criterion.log_centroids if criterion.form.code_words != "learned" else criterion.code_scores
    return words.detach().clone()


def test_fixed_code_words_do_not_move_and_learned_ones_do():
    for words, moves in (("orthogonal", False), ("learned", True)):
        criterion = NCMILoss(3, 4, preset="ratio", code_words=words)
        before = _words_of(criterion)
        optimizer = torch.optim.SGD(criterion.parameters(), lr=1.0)
        criterion(torch.randn(6, 4), torch.arange(6) % 3).backward()
        optimizer.step()
        assert torch.equal(before, _words_of(criterion)) is not moves


def test_end_epoch_gives_the_class_means_of_present_classes():
    criterion = NCMILoss(3, 4, preset="ratio", code_words="means")
    criterion(torch.randn(6, 4), torch.arange(6) % 3)
    before = criterion.log_centroids.clone()
    z, y = torch.randn(9, 4), torch.tensor([0, 0, 0, 2, 2, 0, 2, 2, 0])
    criterion.end_epoch(z, y)
    p = criterion.eval().log_symbols(z).exp()
    for c in (0, 2):
        assert torch.allclose(criterion.log_centroids[c].exp(), p[y == c].mean(0), atol=1e-6)
    assert torch.equal(criterion.log_centroids[1], before[1])


def test_alternating_steps_lower_the_pairwise_form_monotonically():
    torch.manual_seed(1)
    criterion = NCMILoss(
        3, 6, preset="ratio", code_words="means", ratio="batch", separation="pairwise", centring=False
    )
    criterion.double()
    z, y = torch.randn(30, 6, dtype=torch.float64), torch.arange(30) % 3
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.5)
    values = []
    for _ in range(40):
        criterion.end_epoch(z, y)
        values.append(criterion(z, y).item())
        optimizer.zero_grad()
        criterion(z, y).backward()
        optimizer.step()
        values.append(criterion(z, y).item())
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(values))
    assert values[-1] < 0.8 * values[0]


def test_centre_starts_from_two_samples_and_then_follows():
    criterion = NCMILoss(2, None, preset="paper", symbols=4)
    criterion(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([0]))
    assert torch.equal(criterion.eval().centre(torch.ones(1, 4)), torch.ones(1, 4))
    criterion.train()
    criterion(torch.tensor([[3.0, 2.0, 1.0, 0.0]]), torch.tensor([1]))
    assert criterion.centre.mean.tolist() == [2.0, 2.0, 2.0, 2.0]
    criterion(torch.full((5, 4), 12.0) + torch.randn(5, 1) * 0, torch.zeros(5, dtype=torch.int64))
    assert criterion.centre.mean.tolist() == pytest.approx([2.001] * 4, rel=1e-6)
    cumulative = NCMILoss(2, None, preset="ratio", symbols=4, centring=True)
    batches = torch.randn(4, 3, 4)
    for batch in batches:
        cumulative(batch, torch.zeros(3, dtype=torch.int64))
    assert torch.allclose(cumulative.centre.mean, batches.reshape(-1, 4).mean(0), atol=1e-6)


def test_eval_mode_leaves_the_state_alone_and_the_state_dict_carries_it():
    criterion = NCMILoss(3, 6, preset="ratio", code_words="means", separation="pairwise")
    z, y = torch.randn(9, 6), torch.arange(9) % 3
    criterion(z, y)
    criterion.end_epoch(z, y)
    criterion.fit_decision(z, y)
    assert criterion.training
    criterion.eval()
    state = copy.deepcopy(criterion.state_dict())
    loss, probabilities = criterion(z, y), criterion.predict_proba(z)
    assert all(torch.equal(state[k], v) for k, v in criterion.state_dict().items())
    other = NCMILoss(3, 6, preset="ratio", code_words="means", separation="pairwise").eval()
    other.load_state_dict(state)
    assert torch.equal(other(z, y), loss)
    assert torch.equal(other.predict_proba(z), probabilities)


def test_fitted_decision_is_the_regularised_optimum_and_beats_the_nearest_centroid():
    torch.manual_seed(2)
    y = torch.cat([torch.zeros(180), torch.ones(20)]).long()
    z = torch.randn(200, 4) + y.unsqueeze(1) * 0.7
    criterion = NCMILoss(2, 4, preset="ratio", ridge=1.0).eval()
    nll = torch.nn.functional.nll_loss
    before = nll(criterion.log_proba(z), y).item()
    criterion.fit_decision(z, y)
    after = nll(criterion.log_proba(z), y).item()
    assert after < before
    prior = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert after <= prior + 0.01
    # At the optimum of a convex problem a small step in any direction can only raise the objective.
    d = criterion.distances(z).detach().double()
    spread = (d - d.mean(1, keepdim=True)).square().mean().sqrt()

    def objective(a: float, b: torch.Tensor) -> float:
        value = torch.nn.functional.cross_entropy(b - a / spread * d, y)
        return (value + 0.5 / 200 * (b.square().sum() + (a - 1) ** 2)).item()

    a, b = (criterion.decision.scale.double() * spread).item(), criterion.decision.bias.double()
    best = objective(a, b)
    for step in (-0.02, 0.02):
        assert objective(a + step, b) > best
        for j in range(2):
            assert objective(a, b + step * torch.eye(2).double()[j]) > best


def test_a_drop_in_for_cross_entropy_learns():
    torch.manual_seed(0)
    centres = torch.randn(3, 10) * 2
    y = torch.arange(150) % 3
    z = centres[y] + torch.randn(150, 10)
    for preset in sorted(PRESETS):
        criterion = NCMILoss(3, 32, preset=preset, class_counts=[50, 50, 50])
        layer = torch.nn.Linear(10, 32)
        optimizer = torch.optim.Adam([*layer.parameters(), *criterion.parameters()], lr=0.02)
        for _ in range(60):
            loss = criterion(layer(z), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        criterion.eval()
        criterion.end_epoch(layer(z), y)
        probabilities = criterion.predict_proba(layer(z))
        assert (probabilities.argmax(1) == y).float().mean() > 0.9, preset


@pytest.mark.parametrize("form", [{"preset": "ratio"}, {"preset": "log_reverse", "power": 0.5}], ids=str)
def test_compiled_equals_eager(form):
    criterion = NCMILoss(3, 8, **form)
    compiled = copy.deepcopy(criterion)
    # aot_eager traces everything and needs no C++ compiler.
    function = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        z, y = torch.randn(6, 8), torch.arange(6) % 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert function(z, y).item() == pytest.approx(criterion(z, y).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "papre"}, "no NCMI preset 'papre'"),
        ({"symbolz": 3}, "there is no key 'symbolz'; did you mean 'symbols'"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        NCMILoss(3, 8, **arguments)


def test_scores_of_the_wrong_width_are_named():
    with pytest.raises(InputError, match="got 5 scores a sample and needs 3"):
        NCMILoss(3)(torch.randn(2, 5), torch.tensor([0, 1]))


def test_options_override_the_preset():
    criterion = build_loss(loss_config(name="ncmi", preset="ratio", symbols=16, temperature=0.7), 3, 8)
    assert (criterion.symbols, criterion.form.temperature, criterion.form.ratio) == (16, 0.7, "sample")


def test_a_loss_is_built_to_be_checked_without_the_compiler():
    # Loading a model builds it on "meta" first, whose arithmetic would import it: 1.3 s of each command.
    code = (
        "import sys, torch\nfrom wsi_ncmi import NCMILoss\n"
        "with torch.device('meta'):\n"
        "    made = NCMILoss(3, 16), NCMILoss(3, 16, code_words='learned')\n"
        "assert {tensor.device.type for each in made for tensor in each.state_dict().values()} == {'meta'}\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
