"""docs/reference/models.md says what the models are."""

from __future__ import annotations

import re
from pathlib import Path

from wsi_ncmi.mil import list_models, measure_model, model_config

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "models.md").read_text(encoding="utf-8")


def test_the_table_holds_every_model_with_its_measured_cost():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| ([\d,]+) \| ([\d.]+) \| (.+?) \|$", TEXT, flags=re.MULTILINE)
    assert [row[0] for row in rows] == [info.name for info in list_models()]
    for (name, paper, parameters, flops, attention), info in zip(rows, list_models(), strict=True):
        cost = measure_model(model_config(name=name))
        assert int(parameters.replace(",", "")) == cost.parameters
        assert float(flops) == round(cost.flops_per_instance / 1e6, 2)
        assert paper.split(",")[0] == info.paper.split(",")[0]
        assert attention


def test_every_auxiliary_loss_is_listed_by_its_setting():
    defaults = {
        key: value for model in list_models() for key, value in vars(model_config(model.name)).items()
    }
    for group, name in re.findall(r"`(\w+)\.(\w+)`", TEXT):
        if group in defaults:
            assert hasattr(defaults[group], name), f"{group}.{name}"
