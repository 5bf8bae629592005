"""The NCMI loss.

Source: "Normalized Conditional Mutual Information Surrogate Loss for Deep Neural Classifiers", arXiv
2601.02543; its forerunner CMIC-DL, arXiv 2309.09123.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, logsigmoid

from wsi_ncmi.core.arguments import described
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.losses import fixed_centroids, functional
from wsi_ncmi.losses.base import Criterion, full_precision, per_class, project
from wsi_ncmi.losses.decision import CalibratedDecision, ClassMeanDecision, FarDecision
from wsi_ncmi.losses.ncmi_form import resolve_form
from wsi_ncmi.losses.running_statistics import (
    MemoryBank,
    PairwiseSeparation,
    RunningCentre,
    RunningMeans,
    class_sums,
    log_means,
    sum_over_ranks_with_gradient,
)

Reduction = Literal["mean", "sum", "none"]


class NCMILoss(Criterion):
    """Concentration of each class's output distributions against the separation from the other classes.

    An embedding is projected to m symbol scores, (centred,) divided by T and mapped to a distribution p over
    the symbols; s_j is the centroid (code word) of class j. A form has three parts:

    - the ratio r of concentration and separation. ``sample``: KL(p‖s_y) / mean_{j≠y} KL(s_j‖p), the paper's;
      ``batch``: the two means first, with the pairwise Γ the definition itself; ``log``: the soft ratio
      Σ_{j≠y} exp((d_y − d_j)/τ) of the divergences d_j (``direction``: KL(p‖s_j) or KL(s_j‖p));
    - the generalised logarithm (1 − (1 + r)^−q)/q that is minimised (``power`` q): −1 is r itself, 0 is
      log(1 + r), 1 the bounded share r/(1 + r). All rank outputs as r does; the larger q, the less a sample
      counts that is far from its class: a hard one, or a wrongly labelled one;
    - the centroids: fixed code words, learned by gradient, or the class means of p, which minimise the
      concentration for given outputs, and so NCMI itself where Γ is the pairwise form, which does not depend
      on them; with the centroid Γ they are a heuristic.

    Presets: ``default``; ``long_tail``, the same for many classes of which most have few samples, which needs
    the class counts; ``paper`` is the training arithmetic of the paper's public code (scores = centred,
    L2-normalised features; it predicts from L1-normalised ones, here the training's p and class means serve);
    ``ratio`` the same ratio on 8 projected symbols with orthogonal code words; ``log`` and ``log_reverse``
    the log form in the two directions. ``docs/explanation/ncmi.md`` has the derivations, what was measured
    and what failed.

    Centring is off but in ``paper``: fixed code words ask for scores whose mean is not zero, so a mean that
    follows the scores is chased by them without end. Orthogonal code words need m to be a power of two above
    C: m is raised where ``symbols`` is too small (8 symbols serve up to 7 classes).

    In place of ``nn.CrossEntropyLoss`` there are two ways. With ``in_features`` the loss takes embeddings and
    owns the projection: give its parameters to the optimiser too, and predict with :meth:`predict_proba`. On
    logits (B, C), without ``in_features``, a class has one symbol and the decision is their argmax: nothing
    else in a loop changes. The first is the form that was measured.

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding; None when the inputs are the symbol scores themselves, (B, C) or
            (B, symbols) where ``symbols`` is given.
        preset: Name in ``PRESETS``.
        ridge: Regularisation of :meth:`fit_decision`, in pseudo-samples.
        class_counts: Training samples of each class (C,); needed by ``balance`` and ``prior_shift`` only, and
            so by the preset ``long_tail``.
        reduction: ``mean``, ``sum`` or ``none`` over the batch's losses ℓ_i.
        weight: w of each class (C,), as ``nn.CrossEntropyLoss`` has it: w_{y_i} ℓ_i, and the mean is
            Σ w_{y_i} ℓ_i / Σ w_{y_i}. ℓ_i is the whole of a sample's loss, concentration against separation;
            the ratio of a batch, which is one number, has both of its means weighted so. Centroids and
            decision know nothing of it.
        **overrides: Fields of :class:`~wsi_ncmi.losses.ncmi_form.NCMIForm` that replace the preset's.

    Attributes:
        form: The resolved form.
        symbols: Number of symbols m.
        tau: Temperature of the log form that is in force.

    Raises:
        InputError: Unknown preset or setting, fewer symbols than classes, or class counts that are missing.

    Example:
        >>> import torch
        >>> criterion = NCMILoss(num_classes=3, in_features=128)
        >>> z, y = torch.randn(16, 128, requires_grad=True), torch.arange(16) % 3
        >>> criterion(z, y).backward()
        >>> criterion.predict_proba(z).shape
        torch.Size([16, 3])
        >>> NCMILoss(3, reduction="none", weight=torch.tensor([1.0, 2.0, 2.0]))(torch.randn(16, 3), y).shape
        torch.Size([16])
    """

    log_centroids: Tensor
    log_decision_centroids: Tensor
    class_weight: Tensor
    log_prior: Tensor

    def __init__(
        self,
        num_classes: int,
        in_features: int | None = None,
        preset: str = "default",
        *,
        ridge: float = 20.0,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
        weight: Tensor | Sequence[float] | None = None,
        **overrides: Any,
    ) -> None:
        super().__init__(num_classes, in_features)
        self.form = form = resolve_form(preset, overrides)
        if reduction not in get_args(Reduction):
            raise InputError(f"A reduction is one of {', '.join(get_args(Reduction))}, got {reduction!r}.")
        if reduction != "mean" and form.ratio == "batch":
            raise InputError(
                f"The ratio of a batch is one number, which the reduction {reduction!r} can't split; take "
                "'mean', or the ratio 'sample'."
            )
        try:
            valid = 0 < float(ridge) < math.inf
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise InputError(f"The ridge of NCMI's decision is a number above 0, got {described(ridge)}.")
        self.reduction = reduction
        self.weight: Tensor | None
        weights = None if weight is None else per_class(weight, num_classes, "The weight of a loss", 0)
        self.register_buffer("weight", None if weights is None else weights.to(torch.get_default_dtype()))
        self.head: nn.Module = nn.Identity()
        if in_features is None:
            self.symbols = overrides.get("symbols") or num_classes
        elif form.symbols is None:
            self.symbols = in_features
        else:
            self.symbols = fixed_centroids.symbols_needed(form.code_words, num_classes, form.symbols)
            # Centring makes a bias superfluous.
            self.head = nn.Linear(in_features, self.symbols, bias=not form.centring)
        self.centre = None
        if form.centring:
            self.centre = RunningCentre(self.symbols, form.centring_momentum, form.centring_start)
        place = torch.get_default_device()
        with torch.device("cpu"):  # arithmetic on "meta", where models are built to be checked, is slow
            scores = fixed_centroids.code_word_scores(
                form.code_words, num_classes, self.symbols, form.code_scale
            )
            log_centroids = self._log_map(scores).to(torch.get_default_dtype())
        scores, log_centroids = scores.to(place), log_centroids.to(place)
        if form.code_words == "learned":
            self.code_scores = nn.Parameter(scores.to(torch.get_default_dtype()))
        self.register_buffer("log_centroids", log_centroids)
        self.register_buffer("log_decision_centroids", log_centroids.clone())
        self.pairwise = None
        if form.separation == "pairwise" and form.ratio != "log":
            self.pairwise = PairwiseSeparation(log_centroids)
        self.means: RunningMeans | MemoryBank | None = None
        if form.code_words == "means" and form.means_update == "running":
            self.means = RunningMeans(form.means_momentum)
        elif form.code_words == "means" and form.means_update == "bank":
            self.means = MemoryBank(form.bank_size, self.symbols)
        self._set_prior(class_counts)
        self.tau = 2 / self.symbols if form.tau is None else form.tau
        self.decision = CalibratedDecision(num_classes, 1 / self.tau if form.ratio == "log" else 1.0, ridge)
        self._layer: tuple[Tensor, tuple[int, torch.dtype], tuple[Tensor, Tensor]] | None = None
        self.class_means = ClassMeanDecision(num_classes, in_features or self.symbols)
        self.far = FarDecision(num_classes, in_features or self.symbols)
        self.uses_training = form.class_mean_decision or form.plain_when_far
        exact = form.code_words == "means" and form.means_update == "epoch"
        self.needs_epoch_pass = exact or form.decision_means
        self.fits_decision = True

    def _set_prior(self, class_counts: Sequence[int] | None) -> None:
        if not self.form.needs_counts:
            return
        what = "The class counts, which NCMI's balance and prior_shift need,"
        # A class without a sample is never asked for; 1 keeps its logarithm finite.
        counts = per_class(class_counts, self.num_classes, what, 0).clamp(min=1)
        weight = counts.pow(-self.form.balance)
        weight *= counts.sum() / (counts * weight).sum()
        dtype = torch.get_default_dtype()
        self.register_buffer("class_weight", weight.to(dtype))
        self.register_buffer("log_prior", (counts / counts.sum()).log().to(dtype))

    def log_symbols(self, z: Tensor) -> Tensor:
        """Log-probabilities (B, m) of the symbols; in training the running mean is updated."""
        z = self._input(z)
        with full_precision(z):
            return self._log_map(self._symbol_scores(z))

    def _symbol_scores(self, z: Tensor) -> Tensor:
        u = project(self.head, z)
        if u.shape[-1] != self.symbols:
            raise InputError(f"NCMI got {u.shape[-1]} scores a sample and needs {self.symbols}.")
        if self.centre is not None:
            u = self.centre(u)
        if self.form.normalise == "l2":
            square = u.square().sum(dim=-1, keepdim=True)
            # A zero vector stays zero, with gradient 1 instead of 1/0.
            u = u * torch.where(square > 0, square, 1.0).rsqrt()
        return u if self.form.temperature == 1 else u / self.form.temperature

    def batch_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch (see :class:`~wsi_ncmi.losses.base.Criterion`)."""
        with full_precision(z):
            u = self._symbol_scores(z)
            if self._is_linear:
                return self._linear_form(u, y)
            log_p = self._log_map(u)
            log_s = self._training_centroids(log_p, y).to(log_p.dtype)
            if self.form.ratio == "log":
                return self._log_form(self._log_form_scores(log_p, log_s), y)
            concentration = functional.true_class(functional.kl_to_centroids(log_p, log_s), y)
            separation = self._separation(log_p, y, log_s)
            if self.form.ratio == "sample":
                ratio = concentration / functional.separation_floor(separation)
                return self._reduced(self._normalised(ratio), y)
            if self.form.balance:
                concentration = concentration * self.class_weight.to(log_p.dtype)[y]
            if self.weight is not None:
                own = self.weight.to(log_p.dtype)[y]
                concentration, separation = concentration * own, separation * own
            sums = sum_over_ranks_with_gradient(torch.stack([concentration.sum(), separation.sum()]))
            return self._normalised(sums[0] / functional.separation_floor(sums[1]))

    def _log_form(self, scores: Tensor, y: Tensor) -> Tensor:
        form = self.form
        if form.prior_shift and self.training:
            scores = scores + form.prior_shift * self.log_prior.to(scores.dtype)
        if form.effective_power == 0 and not form.balance and self._is_plain_mean:
            return cross_entropy(scores, y)
        log_ratio = cross_entropy(scores, y, reduction="none")
        return self._reduced(functional.generalised_log(log_ratio, form.effective_power), y)

    def _normalised(self, ratio: Tensor) -> Tensor:
        if self.form.effective_power == -1:
            return ratio
        return functional.generalised_log(ratio.log1p(), self.form.effective_power)

    @property
    def _is_plain_mean(self) -> bool:
        return self.reduction == "mean" and self.weight is None

    def _reduced(self, losses: Tensor, y: Tensor) -> Tensor:
        if self.form.balance:
            losses = losses * self.class_weight.to(losses.dtype)[y]
        total: Tensor | int = len(losses)
        if self.weight is not None:
            own = self.weight.to(losses.dtype)[y]
            losses, total = losses * own, own.sum()
        if self.reduction == "none":
            return losses
        return (
            losses.mean()
            if self._is_plain_mean
            else losses.sum() / (total if self.reduction == "mean" else 1)
        )

    @property
    def _is_linear(self) -> bool:
        """True where the log form needs no normalised p: KL(s‖p) is linear in log p, and s is fixed."""
        form = self.form
        return form.ratio == "log" and form.direction == "code_to_sample" and form.code_words != "means"

    def _linear_form(self, u: Tensor, y: Tensor) -> Tensor:
        """The log form from −KL(s_j‖p)/τ (B, C) up to a term that all classes share and the softmax cancels.

        That term is the normalisation of p itself: cross-entropy's head with one more matrix product.
        """
        form = self.form
        learned = form.code_words == "learned"
        weight, bias = self._class_scores(u.dtype)
        sigmax = form.symbol_map == "sigmax"
        if learned or torch.compiler.is_compiling() or not self._is_plain_mean:  # a compiler fuses by itself
            return self._log_form(linear(logsigmoid(u) if sigmax else u, weight, bias), y)
        if form.prior_shift and self.training:
            bias = bias + form.prior_shift * self.log_prior.to(u.dtype)
        sample_weights = self.class_weight.to(u.dtype)[y] if form.balance else None
        return fixed_centroids.linear_log_form(
            u, y, weight, bias, power=form.effective_power, sigmax=sigmax, sample_weights=sample_weights
        )

    def _class_scores(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The linear layer of the class scores; that of fixed centroids is computed once."""
        if self.form.code_words == "learned" or torch.compiler.is_compiling():
            log_s = self.log_centroids if self.form.code_words != "learned" else self._learned_centroids()
            return fixed_centroids.linear_class_scores(log_s.to(dtype), self.tau)
        log_s = self.log_centroids
        # A loaded state changes the tensor's version; a move or cast puts another in its place.
        made_of = (log_s._version, dtype)
        if self._layer is None or self._layer[0] is not log_s or self._layer[1] != made_of:
            layer = fixed_centroids.linear_class_scores(log_s.to(dtype), self.tau)
            self._layer = log_s, made_of, layer
        return self._layer[2]

    def _log_form_scores(self, log_p: Tensor, log_s: Tensor) -> Tensor:
        if self.form.direction == "sample_to_code":
            return log_p.exp() @ (log_s / self.tau).T
        return functional.kl_to_centroids(log_p, log_s, self.form.direction) / -self.tau

    def distances(self, z: Tensor) -> Tensor:
        """Divergences (B, C) from the centroids of the decision, in nats."""
        log_p = self.log_symbols(z)
        log_s = self.log_decision_centroids
        if self.form.code_words == "learned":
            log_s = self._learned_centroids()
        return functional.kl_to_centroids(log_p, log_s.to(log_p.dtype), self.form.direction)

    def log_proba(self, z: Tensor) -> Tensor:
        """Calibrated log-probabilities (B, C); before :meth:`fit_decision` the nearest centroid wins."""
        z = self._input(z)
        with full_precision(z):
            distances = self.distances(z)
            log_p: Tensor = self.far(self.class_means(self.decision(distances), z), distances, z)
            return log_p

    @torch.no_grad()
    def end_epoch(self, z: Tensor, y: Tensor) -> None:
        """Closed-form step: class means of p over the training set, in the form that uses them.

        Classes without a sample keep their centroid. Every process of a data-parallel run may pass its own
        part.

        Args:
            z: All training inputs (N, E), computed in eval mode.
            y: Their labels (N,).
        """
        if not self.needs_epoch_pass:
            return
        z, y = self._checked(z, y)
        was_training = self.training
        self.eval()
        p = self.log_symbols(z).exp()
        self.train(was_training)
        sums = class_sums(p, y, self.num_classes)
        targets = [self.log_decision_centroids]
        if self.form.code_words == "means":
            targets.append(self.log_centroids)
        for target in targets:
            target.copy_(log_means(sums, target))

    def fit_decision(
        self, z: Tensor, y: Tensor, train_z: Tensor | None = None, train_y: Tensor | None = None
    ) -> None:
        """Fits the decision on validation inputs (never test): scale and per-class bias of the distances.

        With the training inputs, and in a form with ``class_mean_decision``, the means of the classes join
        (:class:`~wsi_ncmi.losses.decision.ClassMeanDecision`); with ``plain_when_far`` samples far from all
        of these get a decision without class weights and class means
        (:class:`~wsi_ncmi.losses.decision.FarDecision`).

        Args:
            z: Inputs (N, E) that the network has not learned from, computed in eval mode.
            y: Their labels (N,).
            train_z: The training inputs (M, E), computed in eval mode.
            train_y: Their labels (M,).
        """
        z, y = self._checked(z, y)
        if len(y) == 0:
            return
        was_training = self.training
        self.eval()
        with torch.no_grad():
            distances = self.distances(z)
        self.train(was_training)
        balance = self.form.decision_balance
        if train_z is None or train_y is None:
            self.decision.fit(distances, y, balance)
            return
        train_z, train_y = self._checked(train_z, train_y)
        if self.form.plain_when_far:
            self.decision.fit(distances, y)
            self.far.fit(self.decision, z, train_z)
        self.decision.fit(distances, y, balance)
        if self.form.class_mean_decision:
            with torch.no_grad():
                self.class_means.fit(self.decision(distances), z, y, train_z, train_y, balance)

    def _log_map(self, u: Tensor) -> Tensor:
        return functional.log_sigmax(u) if self.form.symbol_map == "sigmax" else u.log_softmax(dim=-1)

    def _learned_centroids(self) -> Tensor:
        return self._log_map(self.code_scores)

    def _training_centroids(self, log_p: Tensor, y: Tensor) -> Tensor:
        if self.form.code_words == "learned":
            return self._learned_centroids()
        if self.means is not None and self.training:
            new: Tensor = self.means(log_p.detach().exp(), y, self.log_centroids)
            self.log_centroids.copy_(new)
            self.log_decision_centroids.copy_(new)
            return new  # Not the buffer: another forward pass may change it before the backward pass.
        return self.log_centroids

    def _separation(self, log_p: Tensor, y: Tensor, log_s: Tensor) -> Tensor:
        """Each sample's Γ, (B,)."""
        if self.pairwise is not None:
            shares: Tensor = self.pairwise(log_p, y)
            return shares
        separation = functional.others_mean(functional.kl_to_centroids(log_p, log_s, "code_to_sample"), y)
        if self.form.own_term_in_mean:
            separation = separation * ((self.num_classes - 1) / self.num_classes)
        return separation
