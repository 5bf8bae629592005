"""Configuration from YAML, flags and ``--set``: precedence, lists, tagged unions, and where a fault was written."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from wsi_ncmi.core.config import Named, config_from, configclass, field_help, nearest, read_config, to_yaml
from wsi_ncmi.core.errors import InputError


@configclass
class RoundConfig:
    """A round one.

    Attributes:
        radius: In metres.
    """

    name: Literal["round"] = "round"
    radius: Annotated[float, Field(gt=0)] = 1.0


@configclass
class SquareConfig:
    """A square one.

    Attributes:
        side: In metres.
    """

    name: Literal["square"] = "square"
    side: float = 1.0


Shape = Annotated[
    RoundConfig | SquareConfig,
    Named(
        "shape",
        lambda: {"round": RoundConfig, "square": SquareConfig},
        "round",
        frozenset({"radius", "side", "old"}),
    ),
]


@configclass
class GardenConfig:
    """A garden.

    Attributes:
        beds: Its beds.
        hedge: Height in metres; None = no hedge,
            and no shade.
        pond: Its pond.
        colours: Colours of the flowers.
    """

    beds: Annotated[tuple[Shape, ...], Field(min_length=1)] = (RoundConfig(),)
    hedge: float | None = None
    pond: Shape = Field(default_factory=SquareConfig)
    colours: tuple[Literal["red", "blue"], ...] = ()
    depth: int | Literal["auto"] = "auto"


ONE_OF = {"bed": "beds"}


def read(*overrides: str, file: Path | None = None, **flags: object) -> GardenConfig:
    return read_config(GardenConfig, file, flags=flags, overrides=overrides, one_of=ONE_OF)


def fault(*overrides: str, file: Path | None = None, **flags: object) -> str:
    with pytest.raises(InputError) as caught:
        read(*overrides, file=file, **flags)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "garden.yaml"
    path.write_text(
        "hedge: 1\nbeds:\n  - round\n  - name: square\n    side: 2\npond: {name: round, radius: 3}\n"
    )
    return path


def test_the_file_comes_first_then_flags_then_set(file: Path) -> None:
    assert read(file=file).hedge == 1
    assert read(file=file, hedge=2).hedge == 2
    assert read("hedge=3", file=file, hedge=2).hedge == 3
    assert read(file=file, hedge=None).hedge == 1  # a flag that wasn't given


def test_names_and_mappings_choose_the_class(file: Path) -> None:
    config = read(file=file)
    assert config.beds == (RoundConfig(), SquareConfig(side=2))
    assert config.pond == RoundConfig(radius=3)
    assert read("pond=round").pond == RoundConfig()
    assert read("pond.radius=4", "pond.name=round").pond == RoundConfig(radius=4)


def test_lists_are_changed_by_index() -> None:
    assert read("beds.0.radius=2").beds == (RoundConfig(radius=2),)
    assert read("beds.1.side=5", beds=["round", "square"]).beds == (RoundConfig(), SquareConfig(side=5))


def test_a_default_item_gets_another_name_without_its_settings() -> None:
    assert read("beds.0.name=square").beds == (SquareConfig(),)


def test_the_singular_stands_for_the_only_item(tmp_path: Path) -> None:
    assert read("bed.radius=2").beds == (RoundConfig(radius=2),)
    assert read("bed=square", "bed.side=2").beds == (SquareConfig(side=2),)
    path = tmp_path / "one.yaml"
    path.write_text("bed: {name: square, side: 7}\n")
    assert read(file=path).beds == (SquareConfig(side=7),)
    assert "'bed' stands for a single item of 'beds', and there are 2; write beds.0.radius" in fault(
        "bed.radius=2", beds=["round", "round"]
    )


def test_what_0_1_wrote_for_every_item_is_dropped_but_nothing_else() -> None:
    old = {"name": "round", "radius": 2.0, "side": 9.0, "old": 1}
    assert read(beds=[old]).beds == (RoundConfig(radius=2),)
    assert "the shape 'round' has no setting 'side'" in fault(beds=[{"name": "round", "side": 9}])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hedges: 1", ["'hedges' (garden.yaml, line 1)", "did you mean 'hedge'?"]),
        ("\nhedge: high", ["'hedge' (garden.yaml, line 2)", "got 'high'"]),
        ("beds:\n- name: square\n  radius: 1", ["'beds.0.radius' (garden.yaml, line 3)", "the shape 'square' has no"]),
        ("pond: rond", ["'pond' (garden.yaml, line 1)", "no shape named 'rond'", "'round'"]),
        ("pond: {name: rond}", ["'pond.name' (garden.yaml, line 1)"]),
        ("colours: [red, blu]", ["'colours.1' (garden.yaml, line 1)", "one of red, blue", "did you mean 'blue'?"]),
    ],
)  # fmt: skip
def test_a_fault_names_the_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "garden.yaml"
    path.write_text(text)
    message = fault(file=path)
    for each in words:
        assert each in message
    assert "more fault" not in message


def test_a_fault_of_set_or_of_a_flag_does_not_blame_the_file(file: Path) -> None:
    assert "(--set pond.side=1)" in fault("pond.side=1", file=file)
    assert "(--hedge high)" in fault(file=file, hedge="high")
    assert "(--set beds=[rond])" in fault("beds=[rond]", file=file)  # in place of the file's list
    for message in (
        fault("pond.side=1", file=file),
        fault("hedgehog=1", file=file),
        fault("pond.x.y=1", file=file),
    ):
        assert "garden.yaml" not in message
        assert "--set" in message


def test_a_name_like_no_other_lists_the_valid_ones() -> None:
    assert nearest("zebra", ["hedge", "pond"]) == "valid are hedge, pond."
    assert nearest("hegde", ["hedge", "pond"]) == "did you mean 'hedge'?"
    # Half the letters in common are no resemblance.
    assert "did you mean" not in nearest("group", ["hedge", "grid", "pond"])


def test_several_faults_are_counted() -> None:
    assert fault("hedge=x", "pond.side=y").endswith("(1 more fault)")


@pytest.mark.parametrize("override", ["hedge", "=3", "beds.7.name=round", "hedge.x=1", "colours=[1"])
def test_a_malformed_override_is_told(override: str) -> None:
    assert "--set" in fault(override)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("beds=null", "bed.radius=2"), "--set bed.radius=2: 'beds' is None, not a list"),
        (("beds=square", "bed.side=2"), "'beds' is 'square', not a list"),
        (("hedge=" + "9" * 5000,), "is no YAML"),
        (("hedge=2020-13-45",), "is no YAML"),
        (("beds=[3]",), "it is a name, or a mapping with a name, got 3"),
        (("beds=[]",), "it needs at least 1 item(s), got []"),
        (("hedge=[]",), "it is a number, got []"),
        (("depth=x",), "'depth' (--set depth=x) is wrong: it is a whole number, or auto, got 'x'"),
        (("colours=[rot]",), "one of red, blue, got 'rot'"),
    ],
)
def test_a_value_that_does_not_fit_is_one_sentence(overrides: tuple[str, ...], words: str) -> None:
    message = fault(*overrides)
    assert words in message
    assert len(message) < 200


# A few lines that stand for 9 to the power of 9 values, and for as many keys.
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in itertools.pairwise("abcdefghi")
)  # fmt: skip
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, name in itertools.pairwise("abcdefghi")
)


@pytest.mark.parametrize("text", [LAUGHS, MERGES])
def test_aliases_that_stand_for_milliards_of_values_are_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "garden.yaml"
    path.write_text(text)
    assert "more than 100,000 values" in fault(file=path)
    flow = text.strip().replace("\n", ", ")
    assert "is no YAML" in fault(f"beds={{{flow}}}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hedge: 1\npond: square\nhedge: 2", "'hedge' is written twice (garden.yaml, line 1, and again in line 3)"),
        ("beds: &beds [*beds]", "'beds.0' (garden.yaml, line 1): the value contains itself"),
        ("hedge: " + "9" * 5000, "can't be read"),
        ("hedge: 2020-13-45", "can't be read"),
    ],
)  # fmt: skip
def test_a_file_that_can_not_be_meant_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "garden.yaml"
    path.write_text(text)
    assert words in fault(file=path)


def test_an_anchor_may_be_used_again(tmp_path: Path) -> None:
    path = tmp_path / "garden.yaml"
    path.write_text("beds: [&bed {name: square, side: 2}, *bed]\npond: {<<: *bed, side: 3}\n")
    config = read(file=path)
    assert config.beds == (SquareConfig(side=2),) * 2
    assert config.pond == SquareConfig(side=3)


def test_config_from_names_its_origin() -> None:
    with pytest.raises(InputError, match=r"'hedge' \(the bundle m\) is wrong"):
        config_from(GardenConfig, {"hedge": "x"}, "the bundle m")


def test_help_is_the_docstrings_also_over_lines() -> None:
    assert field_help(GardenConfig)["hedge"] == "Height in metres; None = no hedge, and no shade."
    assert list(field_help(GardenConfig)) == ["beds", "hedge", "pond", "colours"]


def test_yaml_reads_back_the_same(tmp_path: Path) -> None:
    config = read("beds.0.radius=2", "colours=[red]")
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(config))
    assert read(file=path) == config
