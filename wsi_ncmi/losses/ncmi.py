"""The NCMI loss.

Source: "Normalized Conditional Mutual Information Surrogate Loss for Deep Neural Classifiers", arXiv
2601.02543; its forerunner CMIC-DL, arXiv 2309.09123.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wsi_ncmi.errors import InputError
from wsi_ncmi.losses import functional
from wsi_ncmi.losses.base import Criterion, project
from wsi_ncmi.losses.centring import RunningCentre
from wsi_ncmi.losses.code_words import code_word_scores, symbols_needed
from wsi_ncmi.losses.decision import CalibratedDecision
from wsi_ncmi.losses.distributed import sum_over_ranks, sum_over_ranks_with_gradient
from wsi_ncmi.losses.ncmi_form import resolve_form

__all__ = ["NCMILoss"]


class NCMILoss(Criterion):
    """Concentration of each class's output distributions against the separation from the other classes.

    An embedding is projected to m symbol scores, (centred,) divided by T and mapped to a distribution p
    over the
    symbols; s_j is the centroid (code word) of class j. What is minimised depends on the form:

    - preset ``paper``: mean_i KL(p‖s_y) / (1/C · Σ_{j≠y} KL(s_j‖p)): the training arithmetic of the paper's
    public
      code, in which the scores are the centred, L2-normalised features themselves and the centroids are
      fixed. Its prediction normalises differently there (L1); here prediction uses the training's p, with
      class means.
    - preset ``ratio``: the same ratio (mean over the C − 1 other classes) on a linear projection to 8
    symbols, with
      orthogonal fixed code words and without L2 normalisation, which would drop the magnitude.
    - preset ``log``: KL(p‖s_y)/τ + log Σ_j exp(−KL(p‖s_j)/τ). The concentration term is the paper's; the
    division
      by the separation is replaced by the subtraction of a soft minimum over all centroids. With fixed code
      words it is bounded: a single hard (or wrongly labelled) slide can't dominate, nor does it teach much.
    - preset ``log_reverse`` (= ``default``): KL(s_y‖p)/τ + log Σ_j exp(−KL(s_j‖p)/τ): the same in the
    divergence of
      the paper's separation. It is unbounded, as cross-entropy is.

    The default is what inner validation on kidney slides supports so far (macro-F1, gated ABMIL, 5
    patient-grouped folds): full data 0.918 (cross-entropy 0.919, ``log`` 0.924), a tenth of the patients
    0.842 (cross-entropy 0.826, class-weighted 0.840, ``log`` 0.817).

    The log forms are no monotone function of the paper's NCMI, but all forms fall when p nears s_y and
    leaves the other s_j; as functions of the distances they are the cross-entropy of softmax(−KL/τ).

    Closed-form class means (``code_words="means"``) minimise the numerator CMI for given outputs, and so NCMI
    itself where Γ is the pairwise form, which does not depend on them; with the centroid form they are a
    heuristic.

    Centring is off but in ``paper``: fixed code words ask for scores whose mean is not zero, so a mean that
    follows the scores is chased by them without end (its norm grew to 119 in 20 epochs on kidney slides;
    macro-F1 on inner validation about 0.89 with it and 0.92 without, log form). The paper's momentum of
    0.9999 hides this by all but freezing the first batch's mean.

    Fixed orthogonal code words need m to be a power of two above C: m is raised where ``symbols`` is too
    small (8 symbols serve up to 7 classes; 1,000 classes take 1,024).

    Args:
        num_classes: Number of classes C.
        in_features: Width of the embedding; None when the inputs are the symbol scores themselves, (B, C) or
            (B, symbols) where ``symbols`` is given.
        preset: Name in ``PRESETS``.
        ridge: Regularisation of :meth:`fit_decision`, in pseudo-samples.
        **overrides: Fields of :class:`~wsi_ncmi.losses.ncmi_form.NCMIForm` that replace the preset's.

    Attributes:
        form: The resolved form.
        symbols: Number of symbols m.

    Raises:
        InputError: Unknown preset or setting, or fewer symbols than classes.

    Example:
        >>> import torch
        >>> criterion = NCMILoss(num_classes=3, in_features=128)
        >>> z, y = torch.randn(16, 128, requires_grad=True), torch.arange(16) % 3
        >>> criterion(z, y).backward()
        >>> criterion.predict_proba(z).shape
        torch.Size([16, 3])
    """

    log_centroids: Tensor
    log_decision_centroids: Tensor
    mean_log_p: Tensor

    def __init__(
        self,
        num_classes: int,
        in_features: int | None = None,
        preset: str = "default",
        *,
        ridge: float = 1.0,
        **overrides: Any,
    ) -> None:
        super().__init__(num_classes, in_features)
        self.form = form = resolve_form(preset, overrides)
        self.head: nn.Module = nn.Identity()
        if in_features is None:
            self.symbols = overrides.get("symbols") or num_classes
        elif form.symbols is None:
            self.symbols = in_features
        else:
            self.symbols = symbols_needed(form.code_words, num_classes, form.symbols)
            # Centring makes a bias superfluous.
            self.head = nn.Linear(in_features, self.symbols, bias=not form.centring)
        self.centre = None
        if form.centring:
            self.centre = RunningCentre(self.symbols, form.centring_momentum, form.centring_start)
        scores = code_word_scores(form.code_words, num_classes, self.symbols, form.code_scale)
        log_words = self._log_map(scores).to(torch.get_default_dtype())
        if form.code_words == "learned":
            self.code_scores = nn.Parameter(scores.to(torch.get_default_dtype()))
        self.register_buffer("log_centroids", log_words)
        self.register_buffer("log_decision_centroids", log_words.clone())
        if form.separation == "pairwise" and form.ratio != "log":
            # Stands in for a class that is missing in a batch (always, at batch size 1).
            self.register_buffer("mean_log_p", log_words.clone())
        self.decision = CalibratedDecision(num_classes, 1 / form.tau if form.ratio == "log" else 1.0, ridge)
        self.needs_epoch_pass = form.code_words == "means" or form.decision_means
        self.fits_decision = True

    def log_symbols(self, z: Tensor) -> Tensor:
        """Log-probabilities (B, m) of the symbols; in training the running mean is updated."""
        with torch.autocast(z.device.type, enabled=False):
            u = project(self.head, z)
            if u.shape[-1] != self.symbols:
                raise InputError(f"NCMI got {u.shape[-1]} scores a sample and needs {self.symbols}.")
            if self.centre is not None:
                u = self.centre(u)
            if self.form.normalise == "l2":
                square = u.square().sum(dim=-1, keepdim=True)
                # A zero vector stays zero, with gradient 1 instead of 1/0.
                u = u * torch.where(square > 0, square, 1.0).rsqrt()
            return self._log_map(u / self.form.temperature)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Computes the loss of a batch (see :class:`~wsi_ncmi.losses.base.Criterion`)."""
        log_p = self.log_symbols(z)
        with torch.autocast(z.device.type, enabled=False):
            log_s = self._training_centroids().to(log_p.dtype)
            if self.form.ratio == "log":
                return cross_entropy(self._log_form_scores(log_p, log_s), y)
            concentration = functional.own(functional.kl_to_centroids(log_p, log_s), y)
            separation = self._separation(log_p, y, log_s)
            if self.form.ratio == "sample":
                return (concentration / functional.separation_floor(separation)).mean()
            sums = sum_over_ranks_with_gradient(torch.stack([concentration.sum(), separation.sum()]))
            return sums[0] / functional.separation_floor(sums[1])

    def _log_form_scores(self, log_p: Tensor, log_s: Tensor) -> Tensor:
        """−KL/τ (B, C) up to a term that all classes of a sample share and the softmax cancels."""
        if self.form.direction == "sample_to_code":
            return log_p.exp() @ (log_s / self.form.tau).T
        return functional.kl_to_centroids(log_p, log_s, self.form.direction) / -self.form.tau

    def distances(self, z: Tensor) -> Tensor:
        """Divergences (B, C) from the centroids of the decision, in nats."""
        log_p = self.log_symbols(z)
        log_s = self.log_decision_centroids
        if self.form.code_words == "learned":
            log_s = self._training_centroids()
        return functional.kl_to_centroids(log_p, log_s.to(log_p.dtype), self.form.direction)

    def log_proba(self, z: Tensor) -> Tensor:
        """Calibrated log-probabilities (B, C); before :meth:`fit_decision` the nearest centroid wins."""
        with torch.autocast(z.device.type, enabled=False):
            log_p: Tensor = self.decision(self.distances(z))
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
        p = self._without_update(z).exp()
        sums = p.new_zeros(self.num_classes, self.symbols + 1)
        sums.index_add_(0, y, torch.cat([p, p.new_ones(p.shape[0], 1)], dim=1))
        sums = sum_over_ranks(sums)
        present = sums[:, -1:] > 0
        means = functional.safe_log(sums[:, :-1] / sums[:, -1:].clamp(min=1))
        targets = [self.log_decision_centroids]
        if self.form.code_words == "means":
            targets.append(self.log_centroids)
        for target in targets:
            target.copy_(torch.where(present, means.to(target.dtype), target))

    def fit_decision(self, z: Tensor, y: Tensor) -> None:
        """Fits scale and per-class bias of the decision on training or validation inputs (never test).

        Args:
            z: Inputs (N, E), computed in eval mode.
            y: Their labels (N,).
        """
        was_training = self.training
        self.eval()
        with torch.no_grad():
            distances = self.distances(z)
        self.train(was_training)
        self.decision.fit(distances, y)

    def _without_update(self, z: Tensor) -> Tensor:
        was_training = self.training
        self.eval()
        log_p = self.log_symbols(z)
        self.train(was_training)
        return log_p

    def _log_map(self, u: Tensor) -> Tensor:
        return functional.log_sigmax(u) if self.form.symbol_map == "sigmax" else u.log_softmax(dim=-1)

    def _training_centroids(self) -> Tensor:
        return self._log_map(self.code_scores) if self.form.code_words == "learned" else self.log_centroids

    def _separation(self, log_p: Tensor, y: Tensor, log_s: Tensor) -> Tensor:
        """Each sample's Γ, (B,)."""
        if self.form.separation == "pairwise":
            return self._pairwise(log_p, y)
        separation = functional.others_mean(functional.kl_to_centroids(log_p, log_s, "code_to_sample"), y)
        if self.form.own_term_in_mean:
            separation = separation * ((self.num_classes - 1) / self.num_classes)
        return separation

    def _pairwise(self, log_p: Tensor, y: Tensor) -> Tensor:
        """Pairwise Γ over the joint batch; a missing class enters as one sample: its mean log p so far."""
        batch = torch.cat([log_p, log_p.new_ones(log_p.shape[0], 1)], dim=1)
        sums = log_p.new_zeros(self.num_classes, self.symbols + 1).index_add_(0, y, batch)
        sums = sum_over_ranks_with_gradient(sums)
        class_sums, counts = sums[:, :-1], sums[:, -1:].detach()
        present = counts > 0
        if self.training:
            with torch.no_grad():
                means = (class_sums / counts.clamp(min=1)).to(self.mean_log_p.dtype)
                self.mean_log_p.copy_(torch.where(present, self.mean_log_p.lerp(means, 0.1), self.mean_log_p))
        class_sums = torch.where(present, class_sums, self.mean_log_p.to(log_p.dtype))
        samples = counts.clamp(min=1).sum()
        other_sums = class_sums.sum(dim=0) - class_sums
        return -(log_p.exp() * other_sums[y]).sum(dim=1) / samples
