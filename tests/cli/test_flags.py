"""Flags from a config class: names, help, defaults, values, and errors that name the flag."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from wsi_ncmi.cli.flags import ConfigFlags, Flag, Given
from wsi_ncmi.core.config import configclass


@configclass
class OvenConfig:
    """An oven.

    Attributes:
        degrees: Temperature in °C. Anything above burns.
        mode: ``fan`` or ``top`` heat.
        preheat: Wait until it is hot.
    """

    degrees: Annotated[int, Field(ge=0)] = 180
    mode: Literal["fan", "top"] = "fan"
    preheat: bool = False


@configclass
class CakeConfig:
    """A cake.

    Attributes:
        recipe: Name of the recipe.
        fillings: What is inside.
        layers: Heights in mm of the first layer, as a number.
        more_layers: Heights of the others.
        candles: Candles on top.
        oven: The oven.
    """

    recipe: str = "plain"
    fillings: tuple[str, ...] = ("jam",)
    layers: float = 10.0
    more_layers: tuple[float, ...] = ()
    candles: bool = True
    oven: OvenConfig = Field(default_factory=OvenConfig)


FLAGS = ConfigFlags(
    f"{__name__}.CakeConfig",
    {
        "recipe": Flag(argument=True),
        "fillings": Flag(),
        "layers": Flag(name="--layer", rest="more_layers"),
        "candles": Flag(name="--no-candles", sets=False),
        "oven.mode": Flag(name="--heat", panel="Oven", default="top"),
        "oven.*": Flag(panel="Oven"),
    },
)


def call(*arguments: str) -> tuple[CakeConfig | None, Any]:
    read: list[CakeConfig] = []

    def command(given: Given) -> None:
        """Bake."""
        read.append(given.read())

    app = typer.Typer(rich_markup_mode=None)
    app.command()(FLAGS.command(command))
    result = CliRunner().invoke(app, list(arguments))
    return (read[0] if read else None), result


def test_flags_reach_their_fields() -> None:
    cake, _ = call(
        "torte", "--fillings", "jam,cream", "--layer", "5", "--layer", "6", "--layer", "7.5", "--no-candles",
        "--heat", "fan", "--degrees", "200", "--preheat",
    )  # fmt: skip
    assert cake == CakeConfig(
        recipe="torte", fillings=("jam", "cream"), layers=5, more_layers=(6, 7.5), candles=False,
        oven=OvenConfig(degrees=200, mode="fan", preheat=True),
    )  # fmt: skip


def test_what_is_not_given_stays_at_the_class_or_at_the_verbs_own_default() -> None:
    assert call("plain")[0] == CakeConfig(oven=OvenConfig(mode="top"))


def test_set_comes_last() -> None:
    cake, _ = call("plain", "--degrees", "200", "--set", "oven.degrees=90")
    assert cake is not None
    assert cake.oven.degrees == 90


def test_help_is_the_fields_own_with_type_and_default() -> None:
    text = " ".join(call("--help")[1].stdout.split())
    assert "--degrees INTEGER Temperature in °C (180)." in text
    assert "Anything above" not in text
    assert "--heat fan|top fan or top heat (top)." in text
    assert "--fillings TEXT,… What is inside (jam)." in text
    assert "--preheat Wait until it is hot." in text
    assert "RECIPE" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("x", "--degrees", "-4"), r"'oven\.degrees' \(--degrees -4\)"),
        (("x", "--heat", "fann"), r"\(--heat fann\).*did you mean 'fan'"),
        (("x", "--layer", "1", "--layer", "two"), r"'more_layers\.0' \(--layer two\)"),
        (("x", "--degrees", "5", "--set", "oven.degrees=x"), r"\(--set oven\.degrees=x\)"),
    ],
)
def test_a_wrong_value_names_the_flag(arguments: tuple[str, ...], words: str) -> None:
    _, result = call(*arguments)
    assert result.exit_code == 2
    assert re.search(words, result.stderr)
