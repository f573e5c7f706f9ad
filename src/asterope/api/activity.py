"""How busy a chip is over time: from the events of launches, or from their occupancy as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from asterope.report import Activity
from asterope.runtime import TimedLaunch
from asterope.units import PS_PER_S

__all__ = ["activity_of_engines", "activity_of_resources"]

_SLICES = 160
_ENGINES = ("load", "store", "tensor", "vector")
_Floats = npt.NDArray[np.float64]


def activity_of_resources(launches: Sequence[TimedLaunch]) -> Activity | None:
    """Return each resource's occupancy over time, even within a launch; None if no time passed."""
    if not launches or not _end_ps(launches):
        return None
    bounds = np.array([0, *(_end(launch) for launch in launches)], np.float64)
    names = list(dict.fromkeys(n for launch in launches for n in launch.result.occupancy))
    busy = {}
    for name in names:
        spent = [x.result.occupancy.get(name, 0.0) * x.result.time_ps for x in launches]
        busy[name] = _shares(bounds, np.cumsum([0.0, *spent]), bounds[-1])
    return Activity(
        time_s=bounds[-1] / PS_PER_S,
        busy={name: tuple(float(x) for x in shares) for name, shares in busy.items()},
    )


def activity_of_engines(launches: Sequence[TimedLaunch], num_tiles: int) -> Activity | None:
    """Return the share of the tiles whose engine works, from the launches' events; None without.

    An engine with several transfers under way is busy once. What comes after the events that a
    launch has kept is not known.
    """
    end_ps = _end_ps(launches)
    spans = _spans(launches)
    if not end_ps or not spans:
        return None
    known = _known(launches, end_ps)
    busy = {}
    for engine in _ENGINES:
        total = np.zeros(_SLICES)
        for tile in range(num_tiles):
            if (tile, engine) in spans:
                total += _shares(*_covered(spans[tile, engine]), end_ps)
        shares = np.clip(total / num_tiles, 0.0, 1.0).tolist()
        busy[engine] = tuple(s if k else None for s, k in zip(shares, known, strict=True))
    return Activity(time_s=end_ps / PS_PER_S, busy=busy)


def _end(launch: TimedLaunch) -> int:
    return launch.start_ps + launch.result.time_ps


def _end_ps(launches: Sequence[TimedLaunch]) -> int:
    return _end(launches[-1]) if launches else 0


def _shares(at_ps: _Floats, spent_ps: _Floats, end_ps: float) -> _Floats:
    """Return the busy share of each slice, where `spent_ps` adds up linearly between moments."""
    edges = np.linspace(0.0, end_ps, _SLICES + 1)
    busy: _Floats = np.diff(np.interp(edges, at_ps, spent_ps)) * (_SLICES / end_ps)
    return busy


def _spans(launches: Sequence[TimedLaunch]) -> dict[tuple[int, str], list[tuple[int, int]]]:
    spans: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for launch in launches:
        for event in launch.result.events:
            span = (launch.start_ps + event.start_ps, launch.start_ps + event.end_ps)
            spans.setdefault((event.tile, event.engine), []).append(span)
    return spans


def _covered(spans: Sequence[tuple[int, int]]) -> tuple[_Floats, _Floats]:
    """Return moments, and how much of the time up to each was covered by spans that may overlap."""
    ordered = np.array(sorted(spans), np.float64)
    starts, ends = ordered[:, 0], np.maximum.accumulate(ordered[:, 1])
    is_first = np.concatenate([[True], starts[1:] > ends[:-1]])
    is_last = np.concatenate([is_first[1:], [True]])
    first, last = starts[is_first], ends[is_last]
    moments = np.stack([first, last], axis=1).ravel()
    spent = np.cumsum(np.stack([np.zeros_like(first), last - first], axis=1).ravel())
    return moments, spent


def _known(launches: Sequence[TimedLaunch], end_ps: int) -> list[bool]:
    """Say of each slice whether all that happens in it was kept; events are in order of start."""
    known = np.ones(_SLICES, np.bool_)
    for launch in launches:
        events = launch.result.events
        if len(events) < launch.result.instructions:
            until = launch.start_ps + (events[-1].start_ps if events else 0)
            first = int(until * _SLICES / end_ps)
            last = -int(-_end(launch) * _SLICES // end_ps)
            known[first:last] = False
    return [bool(k) for k in known]
