"""What a base install does, and what it says about all that needs more."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_ncmi.cli.app import _EXTRAS, app
from wsi_ncmi.core.extras import EXTRAS, MissingPackageError, require

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
BASE = {"torch", "numpy", "scipy", "pydantic", "lazy_loader"}
# Import names of distributions that are called otherwise.
IMPORTED = {
    "openslide-python": "openslide", "openslide-bin": "openslide_bin", "pillow": "PIL", "scikit-image": "skimage",
    "scikit-learn": "sklearn", "opencv-python-headless": "cv2", "pyyaml": "yaml", "pyisyntax": "isyntax", "pylibczirw": "pylibCZIrw",
    "lazyslide-models": "lazyslide_models",
}  # fmt: skip


def name_of(requirement: str) -> str:
    return re.split(r"[ ;\[<>=!~]", requirement)[0].lower()


def packages_of(extra: str) -> set[str]:
    found: set[str] = set()
    for each in PROJECT["optional-dependencies"][extra]:
        own = re.fullmatch(r"wsi-ncmi\[(.*)\]", each)
        found |= {p for e in own[1].split(",") for p in packages_of(e)} if own else {name_of(each)}
    return found


def closure(names: set[str]) -> set[str]:
    """Distributions with all that they need themselves."""
    seen: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name not in seen:
            seen.add(name)
            try:
                todo += [name_of(each) for each in metadata.requires(name) or () if "extra ==" not in each]
            except metadata.PackageNotFoundError:  # of another platform
                continue
    return seen


def test_the_extras_are_those_of_pyproject() -> None:
    assert {name_of(each) for each in PROJECT["dependencies"]} == BASE
    ours = {extra: set(names) for extra, names in EXTRAS.items()}
    for extra, names in ours.items():
        on_slides = "wsi-ncmi[slides]" in PROJECT["optional-dependencies"][extra]
        packages = packages_of(extra) - (packages_of("slides") if on_slides else set())
        assert names == {IMPORTED.get(each, each) for each in packages}, extra
    assert packages_of("all") == packages_of("slides") | packages_of("train") | packages_of("dicom")
    assert set(PROJECT["optional-dependencies"]) == {*ours, "all", "dev", "docs"}


# Runs with the base alone: no other installed package can be found.
HIDE = """
import json, os, sys
from importlib.machinery import PathFinder
HIDDEN = frozenset(json.loads(os.environ["HIDDEN"]))
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""


def with_base_alone(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    allowed = closure(BASE)
    hidden = [
        module
        for module, owners in metadata.packages_distributions().items()
        if module != "wsi_ncmi" and not any(owner.lower().replace("_", "-") in allowed for owner in owners)
    ]
    assert {name for names in EXTRAS.values() for name in names} - set(hidden) <= {
        "jinja2"
    }  # torch needs that
    return subprocess.run(
        [sys.executable, "-c", HIDE + code, *arguments],
        env={**os.environ, "HIDDEN": json.dumps(hidden), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


RUNS = """
import numpy as np, torch
from wsi_ncmi import NCMILoss, losses, metrics, mil
for package in (losses, metrics, mil):
    for name in package.__all__:
        getattr(package, name)

torch.manual_seed(0)
y = torch.tensor([0, 1, 2] * 4)
for each in losses.list_losses():
    criterion = losses.build_loss(losses.loss_config(each.name), 3, 8, (4, 4, 4))
    z = torch.randn(12, 8, requires_grad=True)
    criterion(z, y).backward()
    assert torch.isfinite(z.grad).all(), each.name
for info in mil.list_models():
    model = mil.build_model(mil.model_config(info.name), 8, 3).eval()
    output = model(mil.BagBatch.pack([torch.randn(n, 8) for n in (5, 9)]))
    assert len(output.embedding) == 2, info.name

model = torch.nn.Linear(6, 8)
criterion = NCMILoss(num_classes=3, in_features=8)
optimiser = torch.optim.AdamW([*model.parameters(), *criterion.parameters()])
criterion(model(torch.randn(12, 6)), y).backward()
optimiser.step()

truth = ["a", "b", "c"] * 4
p = np.random.default_rng(0).dirichlet((1, 1, 1), 12)
predicted = ["abc"[i] for i in p.argmax(1)]
assert set(metrics.METRICS) <= set(metrics.classification_metrics(truth, p, predicted, "abc"))
t = y.numpy()
assert 0 < metrics.fit_temperature(t, p) < 10
assert metrics.information_metrics(p, t)["cmi"] > 0
assert metrics.patient_stage(["negative", "macro"]) == "pN1"
assert metrics.corrected_resampled_t_test(np.array([0.1, 0.2, 0.1]), 0.25)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not HIDDEN & loaded, HIDDEN & loaded
"""
SAYS = """
from importlib import import_module
from wsi_ncmi.__main__ import main
told = {}
for place, name in json.loads(sys.argv[1]):
    try:
        getattr(import_module(place), name)
        told[f"{place}.{name}"] = ""
    except ImportError as error:
        told[f"{place}.{name}"] = str(error)
from wsi_ncmi.metrics import read_predictions
try:
    read_predictions("x.csv")
except ImportError as error:
    told["read_predictions"] = str(error)
print(json.dumps(told))
"""


def test_losses_aggregators_metrics_and_the_loops_of_the_docs_run_on_the_base() -> None:
    pages = (
        (ROOT / name).read_text("utf-8") for name in ("README.md", "docs/tutorials/ncmi-in-your-loop.md")
    )
    readme, tutorial = (
        re.findall(r"^ *```python\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL) for page in pages
    )
    loss = next(block for block in readme if "NCMILoss(" in block)
    given = "import torch\nlogits, labels = torch.randn(6, 3), torch.arange(6) % 3\n"
    loop = [textwrap.dedent(block) for block in tutorial if "network" in block]
    assert len(loop) == 2
    result = with_base_alone("\n".join([given, loss, *loop, RUNS]))
    assert result.returncode == 0, result.stderr
    assert float(re.search(r"tensor\(([\d.]+)\)", result.stdout)[1]) > 0.9


def test_the_command_of_a_base_install_names_the_extra() -> None:
    for arguments in ([], ["train", "--features", "x"], ["--help"]):
        result = with_base_alone("from wsi_ncmi.__main__ import main\nmain()\n", *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == 'Error: typer isn\'t installed: pip install "wsi-ncmi[all]"\n'


def test_names_that_need_more_than_the_base_say_so() -> None:
    names = {
        ("wsi_ncmi.slides", "open_slide"): 'PIL isn\'t installed: pip install "wsi-ncmi[slides]"',
        ("wsi_ncmi.tiling", "TileGrid"): "wsi-ncmi[slides]",
        ("wsi_ncmi.features", "write_features"): "wsi-ncmi[slides]",
        ("wsi_ncmi.reporting", "write_report"): "wsi-ncmi[report]",
        ("wsi_ncmi", "open_slide"): "wsi-ncmi[slides]",
        ("wsi_ncmi", "embed_slide"): "wsi-ncmi[slides]",
        ("wsi_ncmi", "FeatureDataset"): "wsi-ncmi[train]",
        ("wsi_ncmi", "load_bundle"): "wsi-ncmi[train]",
        ("wsi_ncmi", "predict"): "wsi-ncmi[all]",
    }
    result = with_base_alone(SAYS, json.dumps(list(names)))
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    for (place, name), words in names.items():
        assert words in told[f"{place}.{name}"], (name, told)
    assert not any("\n" in sentence for sentence in told.values())
    assert told["read_predictions"] == 'pandas isn\'t installed: pip install "wsi-ncmi[report]"'


ARGUMENTS = {
    "inventory": "s", "extract": "s --out x", "verify": "f", "view": "s", "split": "l --out x",
    "audit": "s --labels l", "train": "--features f --out x", "compare": "--features f --out x",
    "grid": "--features f --out x", "search": "--features f --out x", "evaluate": "p --out x",
    "export": "r --out x", "predict": "s --model m --out x", "heatmap": "f --model m --out x",
    "encode_slides": "f --encoder mean --out x", "demo": "", "synth": "x", "run": "demo", "convert": "f --to clam --out x",
    "pseudonymise": "s o --key k --mapping m",
}  # fmt: skip
ALONE = {
    "doctor",
    "config",
    "encoders",
    "models",
    "losses",
    "clean",
    "audit_log",
}  # the command line's own packages are enough


def test_every_verb_names_its_extra_before_any_work(without, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = set(EXTRAS["cli"])
    without(*({name for names in EXTRAS.values() for name in names} - own))
    verbs = {module.__name__.rpartition(".")[2]: extras for module, extras in _EXTRAS.items()}
    assert set(verbs) == set(ARGUMENTS) | ALONE
    assert {verb for verb, extras in verbs.items() if not extras} == ALONE
    helped: list[str] = []
    for verb, arguments in ARGUMENTS.items():
        verb_words = verb.replace("_", "-")
        result = CliRunner().invoke(app, [verb_words, *arguments.split()])
        assert result.exit_code == 2, (verb, result.output)
        assert f'pip install "wsi-ncmi[{",".join(verbs[verb])}]"' in result.stderr
        assert result.stderr.startswith(f"Error: {verb_words} needs ")
        assert result.stderr.count("\n") == 1
        told = CliRunner().invoke(app, [verb_words, "--help"])
        helped += [verb] if told.exit_code == 0 else []
    assert set(ARGUMENTS) - set(helped) <= {"audit", "convert"}  # their config lies beside the work
    assert list(tmp_path.iterdir()) == []


def test_one_missing_package_of_a_verb_is_named(without) -> None:
    without("jinja2")
    with pytest.raises(MissingPackageError) as caught:
        require(("slides", "train"), "run")
    assert (
        str(caught.value) == 'run needs jinja2, which isn\'t installed: pip install "wsi-ncmi[slides,train]"'
    )
    without("optuna")
    require(("onnx",), "x")
    with pytest.raises(MissingPackageError, match=r"\[search\]"):
        require(("search",), "search")


def test_jobs_of_python_miss_what_comes_last_before_any_work(without, tmp_path) -> None:
    from wsi_ncmi import predict, train
    from wsi_ncmi.prediction import PredictConfig
    from wsi_ncmi.training import TrainConfig
    from wsi_ncmi.workflows import JobConfig, run_job

    without("matplotlib")
    out = tmp_path / "out"
    for job in (
        lambda: train(TrainConfig(features=tmp_path, labels="l.csv", out=out)),
        lambda: predict(PredictConfig(slides=tmp_path, model="m.zip", out=out)),
        lambda: run_job(JobConfig(slides=tmp_path, labels="l.csv", out=out)),
    ):
        with pytest.raises(MissingPackageError, match=r"matplotlib.*wsi-ncmi\[train\]"):
            job()
    assert not out.exists()


def test_other_packages_find_a_module_missing_as_ever(without) -> None:
    without("openpyxl")
    assert importlib.util.find_spec("openpyxl") is None
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("openpyxl")  # this module is none of ours
    assert not isinstance(caught.value, MissingPackageError)
