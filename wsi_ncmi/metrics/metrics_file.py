"""Schema of ``metrics.json``."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wsi_ncmi.metrics.results import METRICS_SCHEMA

_Share = Annotated[float, Field(ge=0.0, le=1.0)]
_Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EstimateEntry(_Strict):
    """A metric with its 95 % intervals over patients."""

    value: float | None = Field(description="The metric; null where undefined.")
    ci_low: float | None = Field(
        description="Lower bound of the percentile interval; null where there is none."
    )
    ci_high: float | None = Field(description="Its upper bound.")
    bca_low: float | None = Field(description="Lower bound of the BCa interval.")
    bca_high: float | None = Field(description="Its upper bound.")
    reason: str = Field(default="", description="Why something is undefined, or that the interval is exact.")


class SpreadEntry(_Strict):
    """Spread over folds or seeds."""

    mean: float | None = Field(description="Mean over the folds or seeds.")
    sd: float | None = Field(description="Standard deviation, n − 1; null where n is 1.")
    n: _Count = Field(description="How many there are.")


class ClassEntry(_Strict):
    """One class."""

    support: _Count = Field(description="Slides of the class.")
    patients: _Count = Field(description="Patients with such a slide.")
    precision: EstimateEntry = Field(description="0 where the class is never predicted.")
    recall: EstimateEntry = Field(description="Sensitivity.")
    f1: EstimateEntry = Field(description="0 where the class is neither there nor predicted.")
    auroc: EstimateEntry = Field(description="One against the rest.")
    auprc: EstimateEntry = Field(description="Average precision, one against the rest.")


class CentreEntry(_Strict):
    """One centre."""

    n_slides: _Count = Field(description="Its slides.")
    n_patients: _Count = Field(description="Its patients.")
    macro_f1: EstimateEntry = Field(description="Null where the centre lacks a class.")
    balanced_accuracy: EstimateEntry = Field(description="Mean recall over the classes that it has.")
    accuracy: EstimateEntry = Field(description="Share of its slides classified correctly.")


class ConfusionEntry(_Strict):
    """The confusion matrix."""

    classes: list[str] = Field(description="Names of rows and columns.")
    rows: Literal["true"] = Field(description="What a row is.")
    columns: Literal["predicted"] = Field(description="What a column is.")
    counts: list[list[float]] = Field(description="Slides, mean over seeds.")
    over: str = Field(description="How many seeds the mean is over.")


class AbstentionPoint(_Strict):
    """One share of slides that the model decides; means over seeds."""

    wanted: _Share = Field(description="Share asked for.")
    coverage: _Share = Field(description="Share reached; equal confidences are accepted together.")
    threshold: float = Field(description="Least confidence accepted.")
    slides: float = Field(description="Slides decided.")
    accuracy: float | None = Field(description="Among them.")
    macro_f1: float | None = Field(description="Among them, over all classes.")


class SelectiveEntry(_Strict):
    """Abstention."""

    confidence: Literal["largest probability"] = Field(description="What slides are ordered by.")
    aurc: float | None = Field(description="Mean risk over all coverages (Geifman and El-Yaniv 2017).")
    points: list[AbstentionPoint] = Field(description="A point for each coverage.")


class OperatingPoint(_Strict):
    """One class against the rest at one threshold."""

    target_sensitivity: _Share = Field(description="What the threshold was to keep.")
    threshold: float | None = Field(description="Mean over folds and seeds.")
    sensitivity: _Share | None = Field(description="Reached, pooled over folds and seeds.")
    specificity: _Share | None = Field(description="Reached.")
    ppv: _Share | None = Field(description="At the class shares of this cohort.")
    npv: _Share | None = Field(description="At the class shares of this cohort.")
    sensitivity_patients: _Count | None = Field(default=None, description="Patients that it is a share of.")
    specificity_patients: _Count | None = Field(default=None, description="Likewise.")
    ppv_patients: _Count | None = Field(default=None, description="Likewise.")
    npv_patients: _Count | None = Field(default=None, description="Likewise.")
    chosen_on: Literal["other folds", "validation", "the same slides"] = Field(
        description="Where the threshold is from."
    )


class OverRunsEntry(_Strict):
    """A number of all folds and seeds."""

    mean: float = Field(description="Their mean.")
    min: float = Field(description="The lowest.")
    max: float = Field(description="The highest.")


class RecalibrationEntry(_Strict):
    """Calibration after temperature scaling; the metrics are without it."""

    fitted_on: Literal["validation", "other folds"] = Field(description="Never the tested slides.")
    temperature: OverRunsEntry = Field(description="Above 1 softens; 1 where none proved itself.")
    ece: float = Field(description="Calibration error with it.")
    nll: float = Field(description="Log loss with it.")
    brier: float = Field(description="Brier score with it.")
    slides: OverRunsEntry | None = Field(default=None, description="Slides that a run's fit rests on.")
    errors: OverRunsEntry | None = Field(default=None, description="Those of them that the run got wrong.")
    runs: _Count | None = Field(default=None, description="Folds times seeds.")
    proven: _Count | None = Field(default=None, description="Runs whose temperature proved itself.")


class StagingEntry(_Strict):
    """CAMELYON-17's patient stages."""

    stages: list[str] = Field(description="In order.")
    n_patients: _Count = Field(description="Patients staged.")
    slides_per_patient: dict[Literal["min", "max"], int] = Field(description="The challenge has five.")
    kappa_quadratic: EstimateEntry = Field(description="The challenge's metric.")
    accuracy: EstimateEntry = Field(description="Share of patients with the right stage.")
    confusion_matrix: list[list[float]] = Field(description="Patients, true by predicted, mean over seeds.")


class EvaluationEntry(_Strict):
    """One loss or run."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["wsi-ncmi/metrics/1"] = Field(
        alias="schema", description="Name and version of the form."
    )
    headline: Literal["macro_f1"] = Field(description="Key of the headline.")
    classes: list[str] = Field(description="All classes of the task, in order.")
    n_slides: _Count = Field(description="Distinct slides.")
    n_patients: _Count = Field(description="Distinct patients.")
    n_folds: _Count = Field(description="Distinct folds.")
    seeds: list[int] = Field(description="Seeds.")
    resamples: _Count = Field(description="Bootstrap resamples of patients.")
    ranking_resamples: _Count = Field(description="Those of AUROC and AUPRC.")
    confidence: float = Field(description="Of all intervals.")
    bootstrap_unit: Literal["patient"] = Field(description="What is drawn.")
    pooling: str = Field(description="How values come about.")
    macro_f1: EstimateEntry = Field(description="The headline: mean of F1 over all classes of the task.")
    weighted_f1: EstimateEntry = Field(description="F1 weighted by class size.")
    micro_f1: EstimateEntry = Field(description="Equal to the accuracy.")
    balanced_accuracy: EstimateEntry = Field(description="Mean recall.")
    accuracy: EstimateEntry = Field(description="Share of slides classified correctly.")
    kappa_linear: EstimateEntry = Field(description="Cohen's kappa, linear weights; for ordered classes.")
    kappa_quadratic: EstimateEntry = Field(
        description="Cohen's kappa, quadratic weights; for ordered classes."
    )
    mcc: EstimateEntry = Field(description="Matthews correlation, multiclass.")
    kappa: EstimateEntry | None = Field(default=None, description="Cohen's kappa, without weights.")
    auroc_macro_ovr: EstimateEntry = Field(description="AUROC, one against the rest, mean over classes.")
    auprc_macro: EstimateEntry = Field(description="Average precision, mean over classes.")
    brier: EstimateEntry = Field(description="Squared distance to the one-hot truth, 0–2.")
    nll: EstimateEntry = Field(description="Log loss, nats.")
    ece: EstimateEntry = Field(
        description="Calibration error, 15 equal-width bins; interval corrected for the bias of resampling."
    )
    cmi: EstimateEntry = Field(description="Concentration of the outputs within classes, nats.")
    gamma: EstimateEntry = Field(description="Separation of the outputs between classes, nats.")
    ncmi: EstimateEntry = Field(description="Their ratio; low is good.")
    over_folds: dict[str, SpreadEntry] = Field(description="Metric → spread over folds, seeds averaged.")
    over_seeds: dict[str, SpreadEntry] = Field(description="Metric → spread over seeds of the pooled value.")
    per_class: dict[str, ClassEntry] = Field(description="Class → its figures.")
    confusion_matrix: ConfusionEntry = Field(description="True against predicted.")
    per_centre: dict[str, CentreEntry] = Field(description="Centre → its figures; empty where none is known.")
    selective: SelectiveEntry = Field(description="Abstention.")
    operating_points: dict[str, list[OperatingPoint]] = Field(description="Class → its operating points.")
    recalibration: RecalibrationEntry | None = Field(description="Null where there is nothing to fit on.")
    staging: StagingEntry | None = Field(description="Null for tasks other than CAMELYON-17's.")
    order: list[str] = Field(default=[], description="Classes from the least to the most; empty = no order.")
    warnings: list[str] = Field(description="What a reader must know before believing the numbers.")


class MetricsFile(EvaluationEntry):
    """``metrics.json``: the headline loss at the top, every loss below ``losses`` where there are several."""

    loss: str | None = Field(default=None, description="Name of the headline loss, in a run folder.")
    losses: dict[str, EvaluationEntry] | None = Field(default=None, description="Loss → the same for each.")


def metrics_json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of ``metrics.json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": METRICS_SCHEMA,
        **MetricsFile.model_json_schema(),
    }
