"""Wrong paths and names of every verb are one sentence before torch is imported, and nothing is made."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

EXTRACT = "extract slides --out x --encoder descriptor"
RUN = "run demo --set slides=slides --set labels=labels.csv --set out=x"
TRAIN = "--features packed --labels labels.csv --out x"
CASES = (
    "inventory nowhere", "inventory ''", "inventory slides --mpp-table nowhere", "inventory slides --out ''",
    "inventory slides --out labels.csv/slides.csv",
    "extract nowhere --out x --encoder descriptor", "extract '' --out x --encoder descriptor",
    f"{EXTRACT} --annotations nowhere", f"{EXTRACT} --mpp-table nowhere", f"{EXTRACT} --mpp-table labels.csv",
    f"{EXTRACT} --list nowhere", f"{EXTRACT} --list empty.csv", f"{EXTRACT} --inventory nowhere",
    f"{EXTRACT} --known-failures nowhere", f"{EXTRACT} --set tissue.method=nope", f"{EXTRACT} --set tissue.methd=otsu",
    f"{EXTRACT} --stain nowhere.png",
    "extract slides --out x --encoder descriptr", "extract slides --out x --encoder uni_v1",
    "extract slides --out x --encoder uni_v1 --weights nowhere",
    "extract slides --out x --encoder uni_v1 --weights-dir nowhere",
    "run nowhere.yaml", "run demoo", "run ''", f"{RUN} --variant nope", f"{RUN} --set slides=nowhere",
    f"{RUN} --set labels=nowhere", f"{RUN} --set labels=camelyn:labels.csv", f"{RUN} --set splits=nowhere",
    f"{RUN} --set features=nowhere", f"{RUN} --set features=packed --set labels=nowhere",
    f"{RUN} --set features=packed --set splits=nowhere", f"{RUN} --set annotations=nowhere",
    f"{RUN} --known-failures nowhere", f"{RUN} --set encoder.name=descriptr", f"{RUN} --set loss.name=ncmy",
    *(
        f"{verb} {TRAIN} {wrong}"
        for verb in ("train", "compare", "grid", "search")
        for wrong in ("--features nowhere", "--labels nowhere", "--labels camelyn:labels.csv",
                      "--splits nowhere", "--set training.epohs=3")
    ),
    "train --features '' --out x", f"train {TRAIN} --loss ncmy", f"train {TRAIN} --model abmill",
    f"compare {TRAIN} --losses ncmi,cee", f"grid {TRAIN} --models abmill", f"grid {TRAIN} --losses cee",
    "grid --features a=nowhere+packed --labels labels.csv --out x", f"search {TRAIN} --space nowhere",
    "evaluate nowhere --out x", "evaluate '' --out x", "evaluate predictions.csv --out x --labels nowhere",
    "evaluate predictions.csv --out x --labels camelyn:labels.csv",
    "evaluate predictions.csv --out x --against nowhere",
    "predict nowhere --model packed --out x", "predict slides --model nowhere --out x",
    "predict '' --model packed --out x", "predict slides --model '' --out x",
    "predict nowhere --model packed --out x --watch", "predict slides --model packed --out x --cases nowhere",
    "predict slides --model packed --out x --known-failures nowhere",
    "predict slides --model packed --out x --mpp-table nowhere",
    "predict slides --model packed --out x --weights nowhere", "predict slides --model packed --out ''",
    "predict slides --model packed --out x --scale log",
    "predict slides --model packed --out x --cache labels.csv/x", "predict slides --model packed --out labels.csv",
    "predict slides --model packed --out x --cache ''", "heatmap packed --model packed --out labels.csv/x",
    f"{EXTRACT} --out labels.csv/x", "evaluate predictions.csv --out labels.csv/x", "evaluate predictions.csv --out ''",
    *(f"{verb} {TRAIN} --out {out}" for verb in ("train", "compare", "grid", "search") for out in ("''", "labels.csv/x")),
    "convert packed --to clam --out labels.csv/x", "demo --out ''", "demo --out labels.csv/x",
    "encoders import labels.csv --as uni_v1 --weights-dir ''", "encoders list --weights-dir ''",
    "heatmap nowhere --model packed --out x", "heatmap packed --model nowhere --out x",
    "heatmap packed --model packed --out x --slides nowhere", "heatmap '' --model packed --out x",
    "view nowhere", "view ''", "view predictions.csv --features nowhere",
    "view predictions.csv --annotations nowhere", "view predictions.csv --features packed --model nowhere",
    "convert nowhere --to clam --out x", "convert '' --to clam --out x", "convert packed --to clamm --out x",
    "verify nowhere", "verify ''", "verify packed",
    "export nowhere --out x.zip", "export '' --out x.zip", "export packed --out x.zip --features nowhere",
    "split nowhere --out x.json", "split '' --out x.json", "split camelyn:labels.csv --out x.json",
    "split labels.csv --out ''", "split labels.csv --out x.json --stratify centr",
    "audit nowhere --labels labels.csv", "audit '' --labels labels.csv",
    "audit predictions.csv --labels nowhere", "audit predictions.csv --labels labels.csv --slides nowhere",
    "audit predictions.csv --labels labels.csv --features nowhere",
    "audit predictions.csv --labels labels.csv --thumbnails nowhere",
    "synth ''", "synth labels.csv/x",
    "encoders import nowhere --as uni_v1 --weights-dir slides",
    "encoders import '' --as uni_v1 --weights-dir slides",
    "encoders import labels.csv --as uni_v9 --weights-dir slides",
    "encoders import labels.csv --as uni_v1", "encoders fetch uni_v9 --weights-dir slides",
    "encoders verify --weights-dir nowhere", "encoders verify", "encoders show uni_v9",
    "models import nowhere --class-names a,b --out x", "models import '' --class-names a,b --out x",
    "models import labels.csv --class-names a,b --out ''", "models promote nowhere", "models promote ''",
    "models rollback nowhere", "models rollback ''", "models list nowhere", "models list ''",
    "predict slides --model packed --out x --shadow nowhere", "clean nowhere", "clean ''", "clean packed --yes",
    "clean slides --kind everything", "pseudonymise nowhere x --key k --mapping m",
    "pseudonymise slides labels.csv --key k --mapping m", "pseudonymise slides x --key nowhere --mapping m",
    "config show nowhere.yaml", "config show demoo", "config init --from demoo --out x.yaml",
    "config init --out ''",
)  # fmt: skip
SCRIPT = """
import importlib.abc, json, shlex, sys
from pathlib import Path
from typer.testing import CliRunner
from wsi_ncmi.cli.app import app

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            raise ImportError("torch is imported")

sys.meta_path.insert(0, NoTorch())
there, answers = set(Path().rglob("*")), {}
for case in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, shlex.split(case))
    made = set(Path().rglob("*")) - there
    answers[case] = result.exit_code, result.stderr, sorted(map(str, made))
    there |= made
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """Case → exit code, standard error, and what was made: all in one process that can't import torch."""
    folder = tmp_path_factory.mktemp("early")
    for name in ("slides", "packed"):
        (folder / name).mkdir()
    (folder / "slides" / "a.svs").write_bytes(b"no slide")
    rows = "".join(f"s{i},p{i},{'AB'[i % 2]}\n" for i in range(20))
    (folder / "labels.csv").write_text("slide_id,case_id,label\n" + rows)
    (folder / "empty.csv").write_text("name\n")
    (folder / "predictions.csv").write_text("slide_id,truth,p_A,p_B\ns0,A,0.9,0.1\ns1,B,0.2,0.8\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(CASES)],
        cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, tuple[int, str, list[str]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", CASES)
def test_it_is_told_before_torch_and_nothing_is_made(
    case: str, answers: dict[str, tuple[int, str, list[str]]]
) -> None:
    code, told, made = answers[case]
    assert (code, made) == (2, []), told
    assert told.startswith("Error: ")
    assert len(told.strip().splitlines()) == 1
