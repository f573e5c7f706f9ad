"""Recipes: whole configurations by name, for those who do not want to choose each part.

A recipe is a short function; write one like these and add it to `RECIPES`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from asterope.errors import ConfigError
from asterope.quant.algorithms import algorithm
from asterope.quant.scheme import Scheme

__all__ = ["RECIPES", "Recipe", "recipe"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Formats of weights, activations and KV cache, and the algorithm that rounds the weights."""

    scheme: Scheme
    algorithm: str = "rtn"
    kv: str = "auto"


def fp8() -> Recipe:
    """Eight bits everywhere, by rows: within half a percent, no text, no thought."""
    return Recipe(scheme=Scheme(weights="fp8_row", activations="fp8"))


def mxfp8() -> Recipe:
    """Eight bits in blocks of 32: for activations with outliers beside small ones."""
    return Recipe(scheme=Scheme(weights="mxfp8", activations="same"))


def mxfp4_weights() -> Recipe:
    """Four-bit weights alone: for decoding small batches, where weights are what is read."""
    return Recipe(scheme=Scheme(weights="mxfp4"), algorithm="awq_gptq")


def mxfp4_best() -> Recipe:
    """Four-bit weights and the rest in eight bits: most of both the memory and the accuracy."""
    return Recipe(scheme=Scheme(weights="mxfp4", activations="fp8"), algorithm="awq_gptq", kv="fp8")


def mxfp4_fast() -> Recipe:
    """Four bits on both sides: the chip's peak, for prompts and large batches.

    Where inputs are equalized, rotating them changes little, and costs a product.
    """
    return Recipe(
        scheme=Scheme(weights="mxfp4", activations="same"), algorithm="awq_gptq", kv="fp8"
    )


def nvfp4_weights() -> Recipe:
    """As mxfp4-weights; smaller blocks lose less and take 4.5 bits a weight, not 4.25."""
    return Recipe(scheme=Scheme(weights="nvfp4"), algorithm="awq_gptq")


def nvfp4_best() -> Recipe:
    """As mxfp4-best, in smaller blocks."""
    return Recipe(scheme=Scheme(weights="nvfp4", activations="fp8"), algorithm="awq_gptq", kv="fp8")


def nvfp4_fast() -> Recipe:
    """As mxfp4-fast, in smaller blocks."""
    return Recipe(
        scheme=Scheme(weights="nvfp4", activations="same"), algorithm="awq_gptq", kv="fp8"
    )


def mxfp4_weights_svd() -> Recipe:
    """As mxfp4-weights, with a low-rank branch: most of the loss, for layers thousands wide."""
    return _beside_branch(mxfp4_weights())


def mxfp4_best_svd() -> Recipe:
    """As mxfp4-best, with a low-rank branch: two thirds of the loss."""
    return _beside_branch(mxfp4_best())


def mxfp4_fast_svd() -> Recipe:
    """As mxfp4-fast, with a low-rank branch: half of the loss."""
    return _beside_branch(mxfp4_fast())


def nvfp4_weights_svd() -> Recipe:
    """As mxfp4-weights-svd, in smaller blocks."""
    return _beside_branch(nvfp4_weights())


def nvfp4_best_svd() -> Recipe:
    """As mxfp4-best-svd, in smaller blocks."""
    return _beside_branch(nvfp4_best())


def nvfp4_fast_svd() -> Recipe:
    """As mxfp4-fast-svd, in smaller blocks; the cache stays: others read this as NVFP4_SVD."""
    return dataclasses.replace(_beside_branch(nvfp4_fast()), kv="auto")


def _beside_branch(plain: Recipe) -> Recipe:
    how = algorithm("svdquant")
    return dataclasses.replace(plain, scheme=how.ranked(plain.scheme), algorithm=how.name)


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        made.__name__.replace("_", "-"): made
        for made in (
            fp8, mxfp8, mxfp4_weights, mxfp4_best, mxfp4_fast, nvfp4_weights, nvfp4_best,
            nvfp4_fast, mxfp4_weights_svd, mxfp4_best_svd, mxfp4_fast_svd, nvfp4_weights_svd,
            nvfp4_best_svd, nvfp4_fast_svd,
        )
    }
)  # fmt: skip


def recipe(name: str) -> Recipe:
    """Return a recipe by its name.

    Raises: ConfigError, with the nearest name, for one that does not exist.
    """
    if name in RECIPES:
        return RECIPES[name]()
    near = difflib.get_close_matches(name, RECIPES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(RECIPES)}"
    raise ConfigError(f"there is no {name!r}", where="recipe", hint=hint)
