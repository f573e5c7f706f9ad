"""Mixed precision: which place of which layer is quantized to what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from asterope.errors import CheckpointError, ConfigError, UnsupportedError
from asterope.quant.scheme import Scheme

__all__ = ["MODULES", "PLACES", "LayerModules", "Mix", "Plan", "mix_of", "plan_of_modules"]

MODULES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
})  # fmt: skip
"""The places of a layer that have linear layers, and the modules that are run there as one."""
LayerModules = Sequence[Mapping[str, Sequence[str]]]
"""The modules of each place of each layer."""
PLACES = tuple(MODULES)
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Mix:
    """Say of each layer how its places are quantized, in the order of `PLACES`; None: not at all.

    Raises: ConfigError for a layer with another number of places.
    """

    layers: tuple[tuple[Scheme | None, ...], ...]

    def __post_init__(self) -> None:
        for index, row in enumerate(self.layers):
            if len(row) != len(PLACES):
                raise ConfigError(
                    f"has {len(row)} schemes", where=f"layer {index} of a mix",
                    hint=f"give one for each of {', '.join(PLACES)}",
                )  # fmt: skip
        plain = tuple(tuple(s if s and s.format else None for s in row) for row in self.layers)
        object.__setattr__(self, "layers", plain)

    @classmethod
    def everywhere(cls, scheme: Scheme | None, num_layers: int) -> Mix:
        """Return the mix that has one scheme in all places."""
        return cls(((scheme,) * len(PLACES),) * num_layers)

    def of(self, layer: int) -> dict[str, Scheme | None]:
        """Return the schemes of a layer by place."""
        return dict(zip(PLACES, self.layers[layer], strict=True))

    def replaced(self, layer: int, place: str, scheme: Scheme | None) -> Mix:
        """Return the mix with another scheme in one place."""
        row = tuple({**self.of(layer), place: scheme}.values())
        return Mix((*self.layers[:layer], row, *self.layers[layer + 1 :]))

    @property
    def counts(self) -> dict[Scheme | None, int]:
        """Return how many places have each scheme, the most frequent first."""
        return dict(Counter(scheme for row in self.layers for scheme in row).most_common())

    @property
    def simplest(self) -> Plan | None:
        """Return the one scheme that all places have, None if it is none, else the mix itself."""
        counts = self.counts
        return next(iter(counts), None) if len(counts) <= 1 else self

    @property
    def name(self) -> str:
        """Return what stands for it in tables."""
        return "mix"

    def describe(self) -> str:
        """Return the mix in words: how many places have which scheme."""
        total = sum(self.counts.values())
        parts = (f"{s.name if s else 'bf16'} in {count}" for s, count in self.counts.items())
        return f"mix of {', '.join(parts)} of {total} places"


Plan = Scheme | Mix
"""How the linear layers of a model are quantized: all alike, or place by place."""


def mix_of(plan: Plan | None, num_layers: int) -> Mix:
    """Return a plan place by place.

    Raises: ConfigError for a mix made for another number of layers.
    """
    if not isinstance(plan, Mix):
        return Mix.everywhere(plan, num_layers)
    if len(plan.layers) != num_layers:
        raise ConfigError(
            f"a mix of {len(plan.layers)} layers does not fit a model of {num_layers}", where="mix"
        )
    return plan


def plan_of_modules(
    scheme_of: Callable[[str], Scheme | None], num_layers: int, names: LayerModules = ()
) -> Plan:
    """Return the plan of a model whose modules have schemes by their names in a checkpoint.

    `names` are those of each layer, `MODULES` if there are none.

    Raises: UnsupportedError for modules that are run as one and quantized differently;
    CheckpointError if nothing is quantized.
    """
    where = "quantization_config"

    def of_place(layer: int, place: str) -> Scheme | None:
        own = names[layer] if names else MODULES
        modules = [f"model.layers.{layer}.{name}" for name in own[place]]
        found = {name: scheme_of(name) for name in modules}
        first = next(iter(found.values()))
        others = [name for name, scheme in found.items() if scheme != first]
        if others:
            named = found if len(found) <= _MOST_NAMED else (modules[0], others[0])
            raise UnsupportedError(
                f"{' and '.join(named)} are quantized differently", where=where,
                hint="they are run as one: give them one format",
            )  # fmt: skip
        return first

    found = Mix(tuple(tuple(of_place(i, place) for place in PLACES) for i in range(num_layers)))
    if found.simplest is None:
        raise CheckpointError("targets no layer of the model", where=where)
    return found.simplest
