"""Traces against the rules of the Trace Event Format that Perfetto holds JSON to.

Complete events (X) need name, pid, tid, ts and dur; those of one thread may nest but not partly
overlap ("child slices nest perfectly inside parent slices", Perfetto's track event reference). A
flow is a start (s) and an end (f) of one id, name and category, each bound to the slice around it.
"""

from __future__ import annotations

import json
import math
import os

import pytest

from asterope import chips
from asterope.errors import OutputError
from asterope.kernels import attention, linear
from asterope.runtime import perfetto, simulate, write_trace
from asterope.runtime.perfetto import trace_events
from library_kernels import random
from sim_programs import FIXED, PLAIN, changed, simulated

MAIA = chips.maia200()


@pytest.fixture(scope="module")
def timeline():
    q = random(2 * 20, 8, 32, device="meta")
    k, v = (random(2, 2, 96, 32, device="meta") for _ in "kv")
    with simulate(MAIA, values=False, max_events=5000) as made:
        linear(random(64, 300, device="meta"), random(96, 300, device="meta"))
        attention(q, k, v, past=60, scale=0.2)
        linear(random(64, 300, device="meta"), random(96, 300, device="meta"))
    return made


@pytest.fixture(scope="module")
def trace(timeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "out.json"
    timeline.to_perfetto(path)
    return json.loads(path.read_text())


def events(trace, phase):
    return [e for e in trace["traceEvents"] if e["ph"] == phase]


def slices_by_thread(trace):
    threads = {}
    for e in events(trace, "X"):
        threads.setdefault((e["pid"], e["tid"]), []).append(e)
    return threads


def test_the_file_is_an_object_with_a_list_of_events(trace):
    assert set(trace) == {"traceEvents", "displayTimeUnit"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    assert {e["ph"] for e in trace["traceEvents"]} == {"M", "X", "s", "f"}


def test_every_event_has_what_its_phase_asks_for(trace):
    for e in trace["traceEvents"]:
        assert isinstance(e["pid"], int)
        assert isinstance(e["tid"], int)
        assert isinstance(e["name"], str)
        assert e["name"]
        if e["ph"] == "M":
            assert e["name"] in (
                "process_name",
                "thread_name",
                "process_sort_index",
                "thread_sort_index",
            )
            assert e["args"]
            continue
        assert math.isfinite(e["ts"])
        assert e["ts"] >= 0
        if e["ph"] == "X":
            assert math.isfinite(e["dur"])
            assert e["dur"] >= 0


def test_every_process_and_thread_has_a_name_before_its_first_slice(trace):
    named = set()
    for e in trace["traceEvents"]:
        if e["ph"] == "M" and e["name"] == "thread_name":
            named.add((e["pid"], e["tid"]))
        elif e["ph"] != "M":
            assert (e["pid"], e["tid"]) in named
    names = [e["args"]["name"] for e in events(trace, "M") if e["name"] == "thread_name"]
    assert len(names) == len(set(names))


def test_slices_of_a_thread_come_in_order_of_time(trace):
    for thread in slices_by_thread(trace).values():
        starts = [e["ts"] for e in thread]
        assert starts == sorted(starts)


def test_slices_of_a_thread_nest_or_follow_one_another(trace):
    for (_, thread), slices in slices_by_thread(trace).items():
        open_ends = []
        for e in sorted(slices, key=lambda e: (e["ts"], -e["dur"])):
            start, end = round(e["ts"] * 1e6), round((e["ts"] + e["dur"]) * 1e6)
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            inside = not open_ends or end <= open_ends[-1]
            assert inside, f"thread {thread}: {e['name']} at {start} ps overlaps its neighbour"
            open_ends.append(end)


def test_flows_come_in_pairs_and_go_forward(trace):
    starts = {e["id"]: e for e in events(trace, "s")}
    ends = {e["id"]: e for e in events(trace, "f")}
    assert len(starts) == len(events(trace, "s"))
    assert starts.keys() == ends.keys()
    assert starts
    for key, start in starts.items():
        end = ends[key]
        assert (start["name"], start["cat"]) == (end["name"], end["cat"])
        assert start["ts"] <= end["ts"]
        assert end["bp"] == "e"


def around(slices, ts):
    """Return the slices a moment lies in to the picosecond, both ends taken as inside."""
    at = round(ts * 1e6)
    return [
        e for e in slices if round(e["ts"] * 1e6) <= at <= round((e["ts"] + e["dur"]) * 1e6)
    ]  # fmt: skip


def test_a_flow_begins_in_the_slice_that_signals_and_ends_in_the_one_that_waits(trace):
    """The id says which: launch, tile, number awaited, number waiting."""
    threads = slices_by_thread(trace)
    for phase, which in (("s", 2), ("f", 3)):
        for e in events(trace, phase):
            found = around(threads[e["pid"], e["tid"]], e["ts"])
            number = int(e["id"].split(".")[which])
            assert number in [s["args"]["number"] for s in found]


def test_a_flow_does_not_begin_where_the_next_slice_does(trace):
    """At the moment one slice ends and another begins, a viewer binds to the other."""
    threads = slices_by_thread(trace)
    starts = {key: {e["ts"]: e for e in slices} for key, slices in threads.items()}
    for e in events(trace, "s"):
        other = starts[e["pid"], e["tid"]].get(e["ts"])
        wrong = other is not None and other["args"]["number"] != int(e["id"].split(".")[2])
        assert not wrong, f"flow {e['id']} begins with {other}"


def test_a_flow_goes_from_the_end_of_a_slice_to_the_start_of_a_later_one_on_another_track(trace):
    by_number = {}
    for e in events(trace, "X"):
        if "number" in e["args"]:
            by_number.setdefault((e["pid"], e["tid"], e["args"]["number"]), []).append(e)
    ends = {e["id"]: e for e in events(trace, "f")}
    tracks = {e["tid"]: e["args"]["name"] for e in events(trace, "M") if "name" in e["args"]}
    for start in events(trace, "s"):
        end = ends[start["id"]]
        _, tile, signals, waits = start["id"].split(".")
        assert start["tid"] != end["tid"]
        assert tracks[start["tid"]].startswith(f"tile {tile} ")
        assert tracks[end["tid"]].startswith(f"tile {tile} ")
        # A flow begins up to a nanosecond before the end: a viewer binds it to the slice around.
        sources = by_number[start["pid"], start["tid"], int(signals)]
        last_ns = [(e["ts"] + e["dur"] - 1e-3, e["ts"] + e["dur"]) for e in sources]
        assert any(low - 1e-6 <= start["ts"] <= high + 1e-6 for low, high in last_ns)
        sinks = by_number[end["pid"], end["tid"], int(waits)]
        assert any(e["ts"] == end["ts"] for e in sinks)


def test_every_wait_for_another_track_is_a_flow_unless_there_are_too_many(monkeypatch):
    result = simulated(FIXED[0], PLAIN, 40, 5)
    found = list(trace_events(PLAIN, [("k", 0, result)]))
    flows = [e for e in found if e["ph"] == "s"]
    engine = {(e.tile, e.number): e.engine for e in result.events}
    across = sum(engine[e.tile, w] != e.engine for e in result.events for w in e.waits)
    within = sum(engine[e.tile, w] == e.engine for e in result.events for w in e.waits)
    assert across <= len(flows) <= across + within
    monkeypatch.setattr(perfetto, "MAX_FLOWS", 7)
    few = list(trace_events(PLAIN, [("k", 0, result)]))
    assert [e for e in few if e["ph"] == "s"] == flows[:7]


def test_a_launch_says_its_watts_and_its_clock_and_what_the_limit_cost():
    chip = changed(PLAIN, power__tdp_w=100.0)
    result = simulated(FIXED[1], chip, 75, 6, max_events=0)
    assert result.is_throttled
    (launch,) = [e for e in trace_events(chip, [("k", 0, result)]) if e["ph"] == "X"]
    assert launch["args"]["watts"] <= 100
    assert launch["args"]["clock GHz"] == pytest.approx(result.clock_hz / 1e9, abs=1e-3)
    assert launch["args"]["throttled us"] == result.throttled_ps / 1e6


def test_instructions_lie_within_their_launch(trace, timeline):
    launches = [e for e in events(trace, "X") if "bound by" in e["args"]]
    assert [e["name"] for e in launches] == [t.name for t in timeline.launches]
    ends = [e["ts"] + e["dur"] for e in launches]
    assert [e["ts"] for e in launches[1:]] == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(timeline.time_ps / 1e6)
    instructions = [e for e in events(trace, "X") if "number" in e["args"]]
    assert len(instructions) == sum(len(t.result.events) for t in timeline.launches)
    for e in instructions:
        assert any(
            x["ts"] <= e["ts"] and e["ts"] + e["dur"] <= x["ts"] + x["dur"] + 1e-6 for x in launches
        )


def test_a_slice_says_its_line_and_bytes(trace):
    loads = [e for e in events(trace, "X") if e["name"].startswith("load")]
    assert loads
    assert all(".py:" in e["args"]["line"] for e in loads)
    assert any(e["args"]["bytes"] > 0 for e in loads)


def test_a_load_of_a_triton_kernel_says_which_argument_it_reads(trace):
    names = {e["name"] for e in events(trace, "X")}
    assert {"load q", "load k_cache", "load v_cache"} <= names


def test_without_events_there_are_launches_alone(tmp_path):
    with simulate(MAIA, values=False) as timeline:
        linear(random(4, 32, device="meta"), random(8, 32, device="meta"))
    timeline.to_perfetto(tmp_path / "out.json")
    trace = json.loads((tmp_path / "out.json").read_text())
    assert len(events(trace, "X")) == 1


def test_an_empty_timeline_is_a_valid_trace(tmp_path):
    write_trace(tmp_path / "out.json", MAIA, [])
    assert events(json.loads((tmp_path / "out.json").read_text()), "X") == []


def test_the_same_results_write_the_same_bytes(tmp_path):
    launches = [("k", 0, simulated(FIXED[0], PLAIN, 40, 5))]
    for name in "ab":
        write_trace(tmp_path / name, PLAIN, launches)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", ["no/such/directory", "taken"])
def test_a_trace_that_cannot_be_written_names_the_file(tmp_path, name):
    (tmp_path / "taken").mkdir()
    (tmp_path / "no").write_text("a file, not a directory")
    with pytest.raises(OutputError) as caught:
        write_trace(tmp_path / name, MAIA, [])
    assert caught.value.where == str(tmp_path / name)
    assert "cannot write" in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["no", "taken"]


def test_an_older_trace_survives_a_failed_write(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    write_trace(path, MAIA, [])
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_trace(path, MAIA, [("k", 0, simulated(FIXED[0], PLAIN, 2, 2))])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["out.json"]
