"""The `quantization_config` of a mix: a group for each scheme, whose targets name its modules.

Where all modules that are quantized have one scheme, it is that of `config.py`, and the others are
ignored by name. Scale rules and ranks are recorded by group under `asterope`, and a group that is
rotated has a transform of its own with the same targets.

Source: compressed-tensors 0.20, `utils/match.py` (targets), `compressors/format.py` (format).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from asterope.errors import CheckpointError, UnsupportedError
from asterope.quant.config import (
    config_group,
    config_root,
    has_static_inputs,
    parse_quantization_config,
    quantization_config,
    transform,
)
from asterope.quant.fields import mapping as _mapping
from asterope.quant.mix import MODULES, LayerModules, Mix, Plan, plan_of_modules
from asterope.quant.scheme import Scheme

__all__ = ["StoredGroup", "parse_groups", "parse_plan", "plan_config"]

_ROOT = "quantization_config"
_CLASS = "Linear"
_REPEATED_GROUP = re.compile(r"[)}*+][*+{]|\\[1-9]")
_MOST_REPEATS, _LONGEST_PATTERN = 4, 4096
_MIXED = "mixed-precision"


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A group of modules: their scheme, and whether each stores a scale of its inputs."""

    scheme: Scheme
    has_static_inputs: bool


def plan_config(
    plan: Plan, ignore: Sequence[str], *, static_inputs: Set[str] = frozenset(),
    names: LayerModules = (),
) -> dict[str, Any]:  # fmt: skip
    """Return the `quantization_config` of a checkpoint; `ignore` names other modules left plain.

    `static_inputs` names the modules that store a scale of their inputs, `names` are as in
    `plan_of_modules`.

    Raises: FormatError for unquantized weights, which have none.
    """
    simplest = plan.simplest if isinstance(plan, Mix) else plan
    if not isinstance(simplest, Mix):
        one = simplest or Scheme(weights="none")
        return quantization_config(one, ignore, static_inputs=bool(static_inputs))
    modules: dict[Scheme, list[str]] = {}
    plain: list[str] = []
    for layer in range(len(simplest.layers)):
        own = names[layer] if names else MODULES
        for place, scheme in simplest.of(layer).items():
            listed = modules.setdefault(scheme, []) if scheme else plain
            listed += [f"model.layers.{layer}.{name}" for name in own[place]]
    ignore = [*plain, *ignore]
    if len(modules) == 1:
        only = next(iter(modules))
        return quantization_config(only, ignore, static_inputs=bool(static_inputs))
    named = {f"group_{i}": scheme for i, scheme in enumerate(modules)}
    groups = {
        name: config_group(
            scheme, modules[scheme], static_inputs=not static_inputs.isdisjoint(modules[scheme])
        )
        for name, scheme in named.items()
    }
    stored = {group["format"] for group in groups.values()}
    rotations = {
        name: transform(scheme, modules[scheme], [])
        for name, scheme in named.items()
        if scheme.rotation is not None
    }
    ranks = {name: scheme.rank for name, scheme in named.items() if scheme.rank is not None}
    root = config_root(stored.pop() if len(stored) == 1 else _MIXED, groups, ignore)
    record = {"scale_rules": {name: scheme.rule for name, scheme in named.items()}}
    return root | {
        "transform_config": {"config_groups": rotations} if rotations else None,
        "asterope": record | ({"ranks": ranks} if ranks else {}),
    }


def parse_plan(config: Mapping[str, Any], num_layers: int, names: LayerModules = ()) -> Plan:
    """Return how a checkpoint is quantized: one scheme, or a mix where modules differ.

    `names` are as in `plan_of_modules`.

    Raises: as `parse_groups` and `plan_of_modules`.
    """
    group_of = parse_groups(config)

    def scheme_of(module: str) -> Scheme | None:
        group = group_of(module)
        return None if group is None else group.scheme

    return plan_of_modules(scheme_of, num_layers, names)


def parse_groups(config: Mapping[str, Any]) -> Callable[[str], StoredGroup | None]:
    """Return what tells the group of a module by its name, None for one that is left plain.

    Targets are names of modules, `re:` patterns or the class Linear, and go before each other in
    this order. Each group is read as `parse_quantization_config` reads one.

    Raises: as `parse_quantization_config`; UnsupportedError for a pattern that may take long.
    """
    groups = config.get("config_groups") if isinstance(config, Mapping) else None
    if not isinstance(groups, Mapping) or not groups:
        parse_quantization_config(config)  # raises, saying what is missing
        raise CheckpointError("is empty", where=f"{_ROOT}.config_groups")
    texts = {name: _texts(group, str(name)) for name, group in groups.items()}
    stored = {
        name: StoredGroup(_scheme_of(config, name, texts), has_static_inputs(group))
        for name, group in groups.items()
    }
    by_text = {text: stored[name] for name, own in texts.items() for text in own}
    targets = _Targets(by_text, f"{_ROOT}.config_groups")
    ignored = _Targets(config.get("ignore") or (), f"{_ROOT}.ignore")

    def group_of(module: str) -> StoredGroup | None:
        text = None if ignored.match(module) else targets.match(module)
        return by_text[text] if text else None

    return group_of


class _Targets:
    """What names linear modules: names, patterns that names begin with, or their class."""

    def __init__(self, texts: Iterable[str], where: str) -> None:
        self._texts = set(texts)
        patterns = sorted(text for text in self._texts if text.startswith("re:"))
        self._patterns = {text: _pattern(text[3:], where) for text in patterns}

    def match(self, module: str) -> str | None:
        """Return the first text that names a module: its name, a pattern, the class."""
        if module in self._texts:
            return module
        for text, pattern in self._patterns.items():
            if pattern.match(module):
                return text
        return _CLASS if _CLASS in self._texts else None


def _pattern(text: str, where: str) -> re.Pattern[str]:
    """Compile a pattern; those that could run for ages are refused, for anybody may write them."""
    repeats = sum(text.count(sign) for sign in "*+{")
    if _REPEATED_GROUP.search(text) or repeats > _MOST_REPEATS or len(text) > _LONGEST_PATTERN:
        raise UnsupportedError(
            f"the pattern {text[:80]!r} may take long", where=where,
            hint=f"repeat no groups, and {_MOST_REPEATS} characters at most",
        )  # fmt: skip
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{text[:80]!r} is no pattern: {error}", where=where) from None


def _texts(group: Any, name: str) -> list[str]:
    """Return the targets of a group."""
    where = f"{_ROOT}.config_groups.{name}"
    if not isinstance(group, Mapping):
        raise CheckpointError(f"is {type(group).__name__}, not an object", where=where)
    targets = group.get("targets")
    if not isinstance(targets, list) or not all(isinstance(text, str) for text in targets):
        raise CheckpointError("is not a list of names", where=f"{where}.targets")
    return targets


def _scheme_of(config: Mapping[str, Any], name: str, texts: Mapping[str, list[str]]) -> Scheme:
    """Read one group as if it were all there is."""
    group = config["config_groups"][name]
    alone: dict[str, Any] = {**config, "config_groups": {name: {**group, "targets": [_CLASS]}}}
    record = config.get("asterope")
    rules = record.get("scale_rules") if isinstance(record, Mapping) else None
    if isinstance(record, Mapping) and isinstance(rules, Mapping):
        ranks = _mapping(record.get("ranks") or {}, f"{_ROOT}.asterope.ranks")
        alone["asterope"] = {"scale_rule": rules.get(name), "rank": ranks.get(name)}
    if config.get("transform_config") and texts != {name: [_CLASS]}:
        alone["transform_config"] = _own_transform(config, name, texts)
    return parse_quantization_config(alone)[0]


def _own_transform(
    config: Mapping[str, Any], group: str, texts: Mapping[str, list[str]]
) -> dict[str, Any] | None:
    """Return the transform of a group, as if its targets were all linear layers.

    A transform takes all that its targets match, so they have to be names, those of one group.
    """
    where = f"{_ROOT}.transform_config"
    transforms = config["transform_config"]
    found = transforms.get("config_groups") if isinstance(transforms, Mapping) else None
    if not isinstance(found, Mapping):
        raise CheckpointError("has no groups", where=where)
    named = [own for own in texts.values() if not any(t == _CLASS or t[:3] == "re:" for t in own)]
    all_linear = {"targets": [_CLASS], "ignore": config.get("ignore") or []}
    own: dict[str, Any] = {}
    for name, value in found.items():
        parts = value.get("apply") if isinstance(value, Mapping) else None
        applied = [p for p in parts if isinstance(p, Mapping)] if isinstance(parts, list) else []
        given = applied[0].get("targets") if applied else None
        if given not in named or any(part.get("targets") != given for part in applied):
            raise UnsupportedError(
                "cannot be read; one whose targets are the module names of one group can",
                where=f"{where}.config_groups.{name}.apply",
            )
        if given == texts[group]:
            own[name] = {**value, "apply": [{**part, **all_linear} for part in applied]}
    return {"config_groups": own} if own else None
