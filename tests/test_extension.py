"""A loss, an aggregator and a training setting are each added in two places; everything else follows."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from tests.training.conftest import write_cohort
from wsi_ncmi.cli.app import app

ROOT = Path(__file__).parents[1]

LOSS = '''"""A toy loss."""

import torch
from torch.nn.functional import cross_entropy

from wsi_ncmi.losses.base import LogitCriterion


class ToyLoss(LogitCriterion):
    """Cross-entropy of sharpened logits that counts its steps."""

    def __init__(self, num_classes, in_features=None, *, sharpness=1.0):
        super().__init__(num_classes, in_features)
        self.sharpness = sharpness
        self.register_buffer("steps", torch.zeros(()))

    def loss_from_logits(self, logits, y):
        self.steps += self.training
        return cross_entropy(self.sharpness * logits, y)
'''
LOSS_CONFIG = '''

@register_loss
class ToyConfig(LossConfig):
    """Toy loss.

    Attributes:
        toy_sharpness: Factor of the logits.
    """

    criterion = "wsi_ncmi.losses.toy:ToyLoss"
    paper = "arXiv 0000.00000"
    summary = "cross-entropy of sharpened logits"
    formula = "−log p_y"
    arguments: ClassVar[Mapping[str, str]] = {"toy_sharpness": "sharpness"}

    name: Literal["toy"] = "toy"
    toy_sharpness: form.Positive = 1.0
'''
MODEL = '''"""A toy aggregator."""

import torch
from torch import nn

from wsi_ncmi.mil.base import Aggregator, AggregatorOutput
from wsi_ncmi.mil.segments import segment_softmax, segment_weighted_sum


class ToyPool(Aggregator):
    """Mean of the scaled instances."""

    def __init__(self, in_features, input_dropout=0.0, start=1.0):
        super().__init__(in_features, in_features)
        self.scale = nn.Parameter(torch.full((in_features,), start))

    def embed(self, batch, labels=None):
        features = self.prepared(batch) * self.scale
        attention = segment_softmax(features.new_zeros(len(features)), batch)
        return AggregatorOutput(segment_weighted_sum(features, attention, batch), attention)
'''
MODEL_CONFIG = '''

@register_model
class ToyModelConfig(ModelConfig):
    """Toy aggregator.

    Attributes:
        start: First scale of the instances.
    """

    aggregator = "wsi_ncmi.mil.toy_pool:ToyPool"
    paper = "arXiv 0000.00000"
    summary = "mean of the scaled instances"
    reported_attention = "1/N"

    name: Literal["toy_pool"] = "toy_pool"
    start: float = 1.0
'''
# Imports the program once and runs one verb after the other.
VERBS = """
import json, pathlib, sys
from typer.testing import CliRunner
from wsi_ncmi.cli.app import app

ended = [CliRunner().invoke(app, command) for command in json.loads(sys.argv[1])]
pathlib.Path(sys.argv[2]).write_text(json.dumps([(each.exit_code, each.output) for each in ended]), "utf-8")
"""


class Copy:
    """A copy of the package, changed as a developer would change it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # With the bytecode, but not a file of it that another process is just writing.
        ignored = shutil.ignore_patterns("*.pyc.*")
        shutil.copytree(ROOT / "wsi_ncmi", root / "wsi_ncmi", ignore=ignored)
        shutil.copytree(ROOT / "configs", root / "configs")

    def replace(self, old: str, new: str, file: Path | None = None) -> None:
        """Changes the only place of the package (or of a file) with this text."""
        files = [file] if file else sorted((self.root / "wsi_ncmi").rglob("*.py"))
        (found,) = (each for each in files if old in each.read_text("utf-8"))
        text = found.read_text("utf-8")
        assert text.count(old) == 1
        found.write_text(text.replace(old, new), "utf-8")

    def places(self) -> dict[str, int]:
        """File → changed places: a new file is one, otherwise each run of changed lines."""
        found = {}
        for path in sorted((self.root / "wsi_ncmi").rglob("*.py")):
            name = path.relative_to(self.root)
            before = (ROOT / name).read_text("utf-8").splitlines() if (ROOT / name).exists() else []
            after = path.read_text("utf-8").splitlines()
            if before != after:
                blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
                found[str(name)] = sum(tag != "equal" for tag, *_ in blocks) if before else 1
        return found

    def run(self, *commands: Sequence[str]) -> list[tuple[int, str]]:
        """Exit code and output of each verb of the copy, all in one process of their own."""
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        done = subprocess.run(
            [sys.executable, "-c", VERBS, json.dumps(commands), str(self.root / "answers.json")],
            cwd=self.root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads((self.root / "answers.json").read_text("utf-8"))

    def train(self, out: str, *arguments: str) -> list[str]:
        bags = self.root / "bags.npz"
        if not bags.exists():
            write_cohort(bags)
        return [
            "train", "--features", str(bags), "--out", str(self.root / out), "--folds", "2", "--epochs", "1",
            "--workers", "1", "--quiet", "--set", "evaluation.resamples=100", "--set", "evaluation.figures=[]",
            *arguments,
        ]  # fmt: skip

    def model(self, out: str) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """Content of ``model.json`` and the weights of the first fold."""
        folder = self.root / out / "fold_0" / "seed_0"
        return json.loads((folder / "model.json").read_text()), load_file(folder / "model.safetensors")


def succeeded(answers: Sequence[tuple[int, str]]) -> list[str]:
    """Output of each of these verbs, none of which failed."""
    assert not any(code for code, _ in answers), answers
    return [output for _, output in answers]


@pytest.fixture
def package(tmp_path):
    return Copy(tmp_path)


def test_a_loss_and_an_aggregator_are_each_a_module_and_a_config_class(package):
    for name, module, config in (("losses/toy", LOSS, LOSS_CONFIG), ("mil/toy_pool", MODEL, MODEL_CONFIG)):
        (package.root / f"wsi_ncmi/{name}.py").write_text(module)
        with (package.root / f"wsi_ncmi/{name}.py").with_name("config.py").open("a") as file:
            file.write(config)
    assert package.places() == {
        "wsi_ncmi/losses/config.py": 1, "wsi_ncmi/losses/toy.py": 1,
        "wsi_ncmi/mil/config.py": 1, "wsi_ncmi/mil/toy_pool.py": 1,
    }  # fmt: skip
    *answers, (code, wrong) = package.run(
        [
            "config",
            "show",
            "--set",
            "losses=[{name: toy, toy_sharpness: 3}]",
            "--set",
            "model={name: toy_pool, start: 2}",
        ],
        ["config", "schema"],
        ["losses", "--json"],
        ["models", "--json", "--instances", "4"],
        package.train("run", "--loss", "toy", "--set", "loss.toy_sharpness=2"),
        package.train("pooled", "--model", "toy_pool", "--set", "model.start=3"),
        package.train("wrong", "--loss", "toy", "--set", "loss.toy_sharpnes=2"),
    )
    shown, schema, losses, models, *_ = succeeded(answers)
    assert "- name: toy\n  toy_sharpness: 3.0\n" in shown
    assert "name: toy_pool\n" in shown
    assert "start: 2.0\n" in shown
    assert "toy_sharpness" in json.dumps(json.loads(schema))
    assert "toy_pool" in schema
    listed = {row["name"]: row for row in json.loads(losses)}
    assert listed["toy"]["settings"] == {"toy_sharpness": 1.0}
    assert "start" in {row["name"]: row for row in json.loads(models)}["toy_pool"]["settings"]
    config, tensors = package.model("run")
    assert config["loss"] == {"name": "toy", "toy_sharpness": 2.0}
    assert tensors["criterion.steps"] > 0
    config, tensors = package.model("pooled")
    assert config["model"]["start"] == 3.0
    assert "hidden" not in config["model"]
    assert (tensors["aggregator.scale"] != 3.0).any()
    assert code == 2
    assert "the loss 'toy' has no setting 'toy_sharpnes'; did you mean 'toy_sharpness'?" in wrong
    assert not (package.root / "wrong").exists()


def test_a_training_setting_is_a_field_and_its_use(package):
    done = CliRunner().invoke(app, package.train("run"))  # the package as it is
    assert done.exit_code == 0, done.output
    before = (package.root / "run/fold_0/seed_0/model.safetensors").read_bytes()
    config = package.root / "wsi_ncmi/training/config.py"
    for line, new in (
        ("        decision: Which bags", "        momentum: Decay of the optimiser's mean gradient.\n"),
        ("    decision: Literal[", "    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9\n"),
    ):
        package.replace(line, new + line, config)
    package.replace("self._betas = (0.9, 0.999)", "self._betas = (options.momentum, 0.999)")
    places = package.places()
    assert places.pop("wsi_ncmi/training/config.py") == 2  # the field, and its line of the docstring
    assert list(places.values()) == [1]
    *answers, (code, wrong) = package.run(
        ["config", "show", "--set", "training.momentum=0.8"],
        ["config", "schema"],
        ["train", "--help"],
        package.train("run"),  # the finished run of before is the one with the default
        package.train("same", "--momentum", "0.9"),
        package.train("other", "--set", "training.momentum=0.5"),
        package.train("wrong", "--momentum", "1.5"),
    )
    shown, schema, text, *_ = succeeded(answers)
    assert "  momentum: 0.8\n" in shown
    assert "momentum" in schema
    assert "--momentum" in text
    assert "Decay of the optimiser's mean" in text
    weights = [
        (package.root / out / "fold_0/seed_0/model.safetensors").read_bytes()
        for out in ("run", "same", "other")
    ]
    assert weights[:2] == [before, before]
    assert weights[2] != before
    assert code == 2
    assert "less than 1" in wrong
