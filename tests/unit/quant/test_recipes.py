"""Recipes: each is a whole configuration that exists."""

from __future__ import annotations

import pytest

from asterope.errors import ConfigError
from asterope.llm import CACHE_FORMATS
from asterope.quant import ALGORITHMS, RECIPES, Recipe, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_names_formats_and_algorithms_there_are(name):
    made = recipe(name)
    assert isinstance(made, Recipe)
    assert made.scheme.format is not None
    assert made.algorithm in ALGORITHMS
    assert made.kv in CACHE_FORMATS
    assert RECIPES[name].__doc__
    assert made.scheme.weights.partition("_")[0] == name.partition("-")[0]


def test_a_recipe_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(ConfigError) as raised:
        recipe("mxfp4-bets")
    assert raised.value.hint == "did you mean mxfp4-best?"
