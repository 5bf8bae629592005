"""Several runs of one configuration, and the headline protocol on stand-in features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.workflows import JobConfig, JobResult, load_config, run_job
from wsi_ncmi.workflows.config import shipped_configs
from wsi_ncmi.workflows.run import run_variants

CLASSES = ("negative", "itc", "micro", "macro")


@pytest.fixture(scope="module")
def camelyon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic stand-in: CAMELYON-17's names, patients, centres and class shares; features of 8 numbers."""
    folder = tmp_path_factory.mktemp("camelyon")
    rng = np.random.default_rng(0)
    ids = [f"patient_{p:03}_node_{n}" for p in range(100) for n in range(2)]
    label = rng.choice(4, len(ids), p=(0.6, 0.12, 0.13, 0.15))
    lengths = rng.integers(4, 9, len(ids)).astype(np.int32)
    features = np.repeat(2.0 * np.eye(4, 8)[label], lengths, axis=0) + rng.normal(size=(lengths.sum(), 8))
    np.savez(
        folder / "bags.npz", features=features.astype(np.float16), lengths=lengths, slide_id=np.array(ids)
    )
    rows = [f"{s}.tif,{CLASSES[c]}" for s, c in zip(ids, label, strict=True)]
    (folder / "stage_labels.csv").write_text("\n".join(["patient,stage", *rows]) + "\n")
    return folder


def test_keys_of_a_variant_replace_those_of_the_whole() -> None:
    config = load_config("camelyon17")
    published = config.variant("vits16-as-published")
    assert published.encoder.name == "lunit-vits16"
    assert (published.split.group, published.split.validation, published.split.stratify) == (
        "slide_id",
        0.1,
        (),
    )
    assert published.training == config.training
    assert published.name == "CAMELYON-17: vits16-as-published"
    assert published.variants == {}


def test_another_encoder_takes_nothing_from_the_first() -> None:
    config = JobConfig(
        encoder={"name": "timm:resnet18", "input_px": 96}, variants={"a": {"encoder": {"name": "descriptor"}}}
    )  # type: ignore[arg-type]
    assert config.variant("a").encoder.input_px is None


def test_every_shipped_variant_is_valid() -> None:
    for path in shipped_configs().values():
        config = load_config(path)
        assert all(config.variant(name) for name in config.variants)


def test_wrong_variants_are_told_before_anything_runs() -> None:
    def never(config: JobConfig, folder: Path) -> JobResult:
        raise AssertionError(config, folder)

    with pytest.raises(InputError, match=r"no variant 'x'; it has: a"):
        run_variants(JobConfig(variants={"a": {}}), ["x"], never)


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ("  b: {loss: nmci}", "'variants.b.loss' (job.yaml, line 4): there is no loss named 'nmci'; did you mean 'ncmi'?"),
        ("  b:\n    loss: {name: ce, power: 3}", "'variants.b.loss.power' (job.yaml, line 5): the loss 'ce' has no setting 'power'"),
        ("  b: {loss: ce, losses: [ce]}", "'variants.b.loss' (job.yaml, line 4: ce) and 'variants.b.losses'"),
        ("  b: {training: {epoch: 3}}", "'variants.b.training.epoch' (job.yaml, line 4): there is no key 'epoch'; did you mean 'epochs'?"),
        ("  b: {encoder: uni_v9}", "'variants.b.encoder' (job.yaml, line 4): there is no encoder 'uni_v9'; did you mean uni_v2"),
        ("  b: {split: {test: 0.4}}", "'variants.b.split.test' (job.yaml, line 4: 0.4) and 'split.folds' (job.yaml, line 1: 3): only a hold-out"),
        ("  b: {epochs: 3}", "'variants.b.epochs' (job.yaml, line 4): there is no key 'epochs'; did you mean 'training.epochs'?"),
        ("  b: {out: x}", "'variants.b.out' (job.yaml, line 4): all variants share the job's own"),
        ("  b: {variants: {c: {}}}", "'variants.b.variants' (job.yaml, line 4): all variants share"),
        ("  ..: {}", "'variants...' (job.yaml, line 4): a variant's name is that of its folder"),
        ("  a/b: {}", "'variants.a/b' (job.yaml, line 4)"),
        ("  '': {}", "'variants.' (job.yaml, line 4)"),
        ("  'a:': {}\n  a_: {}", "'variants.a_' (job.yaml, line 5) and 'variants.a:' (job.yaml, line 4): they would share a folder"),
        ("  b: 3", "'variants.b' (job.yaml, line 4) is wrong: it takes keys of its own, got 3"),
    ],
)  # fmt: skip
def test_a_fault_of_a_variant_is_told_with_its_line_when_the_file_is_read(
    tmp_path: Path, variants: str, words: str
):
    file = tmp_path / "job.yaml"
    file.write_text(f"split: {{folds: 3}}\nvariants:\n  a: {{}}\n{variants}\n")
    with pytest.raises(InputError) as caught:
        load_config(file)
    assert words in str(caught.value)


def test_a_variant_may_name_one_loss_and_an_encoder_short() -> None:
    variant = JobConfig(variants={"b": {"loss": {"power": 0.5}, "encoder": "uni_v1"}}).variant("b")
    assert [loss.power for loss in variant.losses] == [0.5]
    assert variant.encoder.name == "uni_v1"


def test_a_variant_that_fails_costs_only_itself() -> None:
    def run(config: JobConfig, folder: Path) -> JobResult:
        if folder.name == "bad":
            raise InputError("no weights.")
        return JobResult({"report": folder / "report.html"}, notes=("fine",))

    config = JobConfig(variants={"bad": {}, "good": {}})
    result = run_variants(config, (), run)
    assert result.files == {"good.report": Path("out/run/good/report.html")}
    assert (result.failures, result.notes) == (("bad: no weights.",), ("good: fine",))
    with pytest.raises(InputError, match="no weights"):
        run_variants(config, ["bad"], run)


def _protocol(folder: Path, out: Path, *more: str) -> JobConfig:
    return load_config(
        "camelyon17",
        [
            f"features={folder}/bags.npz", f"labels=camelyon17:{folder}/stage_labels.csv", f"out={out}", "seeds=1",
            "training.epochs=4", "training.learning_rate=0.003", "evaluation.resamples=100", "evaluation.figures=[]", "workers=1",
            *more,
        ],
    )  # fmt: skip


def test_headline_protocol_refuses_the_leaking_half_unless_told(camelyon: Path, tmp_path: Path) -> None:
    only = ["resnet18", "resnet18-as-published"]
    result = run_job(_protocol(camelyon, tmp_path), only=only)
    assert [failure.split(":")[0] for failure in result.failures] == ["resnet18-as-published"]
    assert "--allow-leak" in result.failures[0]
    folds = json.loads((tmp_path / "run" / "resnet18" / "splits.json").read_text())["folds"]
    assert {int(s[8:11]) // 20 for s in folds[0]["test"]} == {3, 4}
    patients = {part: {s[:11] for s in folds[0][part]} for part in ("train", "validation")}
    assert patients["train"] & patients["validation"] == set()
    metrics = json.loads(result.files["resnet18.metrics"].read_text())
    assert set(metrics["losses"]) == {"ncmi", "ce"}
    assert metrics["n_slides"] == 80
    assert metrics["recalibration"]["fitted_on"] == "validation"
    assert metrics["operating_points"]["macro"][0]["chosen_on"] == "validation"
    assert "chosen on the validation part" in result.files["resnet18.report"].read_text()
    assert metrics["staging"]["n_patients"] == 40
    assert any("Only 40 patients" in warning for warning in metrics["warnings"])


def test_headline_protocol_as_published_says_that_it_leaks(camelyon: Path, tmp_path: Path) -> None:
    result = run_job(_protocol(camelyon, tmp_path, "allow_leak=true"), only=["resnet18-as-published"])
    assert result.failures == ()
    folds = json.loads((tmp_path / "run" / "resnet18-as-published" / "splits.json").read_text())["folds"]
    patients = {part: {s[:11] for s in folds[0][part]} for part in ("train", "validation")}
    assert patients["train"] & patients["validation"]
    assert "LEAKS" in result.files["resnet18-as-published.summary"].read_text()
    assert "LEAKS" in result.files["resnet18-as-published.report"].read_text()
