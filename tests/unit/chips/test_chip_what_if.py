from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asterope import chips
from asterope.chips import Chip, Confidence, Provenance
from asterope.errors import ChipError

EVERY = [(name, profile) for name in chips.names() for profile in chips.profiles(name)]
NUMBERS = sorted(
    row.path
    for row in chips.figures(chips.maia200())
    if isinstance(row.value, float) and not row.path.startswith(("peak", "hbm.eff", "power"))
)


def over_maia200(text: str) -> Chip:
    return chips.loads_toml(f'base = "maia200"\n{text}', where="mine.toml")


def loaded(text: str) -> Chip | ChipError:
    try:
        return chips.loads_toml(text, where="mine.toml")
    except ChipError as error:
        return error


def what_ifs(chip: Chip) -> set[str]:
    return {row.path for row in chips.figures(chip) if row.confidence is Confidence.WHAT_IF}


@pytest.mark.parametrize(("name", "profile"), EVERY)
def test_what_is_written_loads_back_equal(name: str, profile: str) -> None:
    chip = chips.get(name, profile)
    text = chips.dumps_toml(chip)
    assert chips.loads_toml(text) == chip
    assert chips.dumps_toml(chips.loads_toml(text)) == text


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(NUMBERS), st.floats(1e-9, 1e15), max_size=4))
def test_any_what_if_that_is_accepted_loads_back_equal(overrides: dict[str, float]) -> None:
    base = chips.maia200("headline")
    try:
        chip = chips.replace(base, overrides)
    except ChipError:
        assume(False)
    assert chips.loads_toml(chips.dumps_toml(chip)) == chip
    old = {row.path: row.value for row in chips.figures(base)}
    assert {path for path, value in overrides.items() if value != old[path]} <= what_ifs(chip)


def test_the_written_form_shows_unit_source_and_confidence() -> None:
    text = chips.dumps_toml(chips.maia200())
    assert 'base = "maia200"\nprofile = "bench"\n' in text
    assert "# the maker's figure [B/s]\nbandwidth_bytes_per_s = { value = 7e12, source = " in text
    assert 'confidence = "published"' in text
    assert text.count("Deep dive into the Maia 200 architecture") == 1


def test_a_changed_figure_is_a_what_if_and_the_rest_keeps_its_source() -> None:
    chip = over_maia200("[hbm]\nbandwidth_bytes_per_s = 8e12\ncapacity_bytes = 216e9\nstacks = 6")
    assert chip.hbm.bandwidth_bytes_per_s == 8e12
    assert what_ifs(chip) == {"hbm.bandwidth_bytes_per_s", "hbm.access.reads_in_flight_bytes"}
    assert chip.provenance["hbm.bandwidth_bytes_per_s"].source == "mine.toml"
    assert chip.provenance["hbm.stacks"] == chips.maia200().provenance["hbm.stacks"]
    assert (chip.name, chip.base, chip.profile) == ("maia200", "maia200", "bench")


def test_a_file_may_give_its_own_name_source_and_confidence() -> None:
    chip = over_maia200(
        'name = "maia300"\nprofile = "headline"\n[sources]\ncall = "the vendor\'s call"\n'
        '[hbm]\nefficiency = { value = 0.8, source = "call", confidence = "secondary" }\n'
        'latency_cycles = { value = 500, note = "hoped" }\n'
    )
    assert (chip.name, chip.profile, chip.clock_hz) == ("maia300", "headline", 2.15e9)
    label = Provenance("the vendor's call", Confidence.SECONDARY)
    assert chip.provenance["hbm.efficiency"] == label
    hoped = Provenance("mine.toml", Confidence.WHAT_IF, "hoped")
    assert chip.provenance["hbm.latency_cycles"] == hoped


def test_a_label_copied_beside_another_value_loses_its_claim() -> None:
    text = chips.dumps_toml(chips.maia200()).replace(
        "bandwidth_bytes_per_s = { value = 7e12,", "bandwidth_bytes_per_s = { value = 9e12,"
    )
    chip = chips.loads_toml(text, where="mine.toml")
    assert chip.hbm.bandwidth_bytes_per_s == 9e12
    assert what_ifs(chip) == {"hbm.bandwidth_bytes_per_s", "hbm.access.reads_in_flight_bytes"}


def test_peaks_follow_the_clock_also_in_an_edited_full_description() -> None:
    text = chips.dumps_toml(chips.maia200()).replace("value = 2e9", "value = 2.2e9")
    for chip in (over_maia200("clock_hz = 2.2e9"), chips.loads_toml(text)):
        assert chip.peak_flop_per_s["fp4"] == pytest.approx(9.437184e15 * 1.1)
        followers = {f"peak_flop_per_s.{element}" for element in chip.peak_flop_per_s}
        assert what_ifs(chip) == {"clock_hz", *followers}


def test_the_sram_total_follows_its_parts() -> None:
    chip = chips.replace(chips.maia200(), {"tile.tsram.capacity_bytes": 4 * 2**20})
    assert chip.sram_total_bytes == 272_000_000 + 36 * 2**20
    assert what_ifs(chip) == {"tile.tsram.capacity_bytes", "sram_total_bytes"}


def test_links_scale_with_the_network_and_the_network_follows_its_links() -> None:
    doubled = chips.replace(chips.maia200(), {"network.per_direction_bytes_per_s": 2.8e12})
    assert doubled.network.switched_bytes_per_s == pytest.approx(800e9)
    assert doubled.network.fixed_ns_bytes_per_s == pytest.approx(600e9)
    assert doubled.network.off_rack_bytes_per_s == pytest.approx(266e9)
    wider = chips.replace(chips.maia200(), {"network.switched_bytes_per_s": 800e9})
    assert wider.network.per_direction_bytes_per_s == pytest.approx(1.8e12)
    assert wider.network.fixed_ns_bytes_per_s == 300e9
    assert wider.network.off_rack_bytes_per_s == pytest.approx(266e9)


def test_links_may_be_described_for_a_chip_that_had_none() -> None:
    links = ("fixed_ns", "fixed_ew", "fixed_diagonal", "switched")
    overrides = {f"network.{link}_bytes_per_s": 100e9 for link in links}
    chip = chips.replace(chips.get("h100"), overrides)
    assert chip.network.per_direction_bytes_per_s == 400e9


def test_a_new_format_needs_depth_and_energy_and_its_peak_follows() -> None:
    depth = {"tile.tensor.depth_per_cycle.int8": 32}
    chip = chips.replace(chips.maia200(), {**depth, "power.energy_pj.mac.int8": 0.1})
    assert chip.peak_flop_per_s["int8"] == chip.peak_flop_per_s["fp8"]
    with pytest.raises(ChipError, match=r"^power\.energy_pj\.mac\.int8: is missing"):
        chips.replace(chips.maia200(), depth)


def test_replace_leaves_the_original_and_equal_values_alone() -> None:
    chip = chips.maia200()
    assert chips.replace(chip, {"hbm.bandwidth_bytes_per_s": 7e12}) == chip
    changed = chips.replace(chip, {"hbm.bandwidth_bytes_per_s": 8e12}, origin="sweep")
    assert chip.hbm.bandwidth_bytes_per_s == 7e12
    assert changed.provenance["hbm.bandwidth_bytes_per_s"].source == "sweep"
    assert changed != chip


def test_a_chip_can_be_described_from_nothing(tmp_path: Path) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(
        'name = "toy"\nvendor = "me"\nlaunch = "2030"\nlaunch_overhead_s = 0\n'
        "[peak_flop_per_s]\nfp8 = 1e15\n"
        "[hbm]\ncapacity_bytes = 1e11\nbandwidth_bytes_per_s = 1e12\nefficiency = 0.9\n"
        '[network]\nper_direction_bytes_per_s = 1e11\ntopology = "ring"\ndomain_chips = 8\n'
        "one_way_latency_s = 1e-6\n[profiles.slow.peak_flop_per_s]\nfp8 = 5e14\n"
        "[profiles.fast.peak_flop_per_s]\nfp8 = 2e15\n"
    )
    chip = chips.get(str(path))
    assert (chip.profile, chip.base, chip.peak_flop_per_s["fp8"]) == ("slow", "", 5e14)
    assert chips.get(str(path), "fast").peak_flop_per_s["fp8"] == 2e15
    assert {row.source for row in chips.figures(chip)} == {str(path)}
    assert chips.loads_toml(chips.dumps_toml(chip)) == chip


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("hbm.bandwidth_bytes_per_s = -1", "hbm.bandwidth_bytes_per_s", "more than zero"),
        ("hbm.bandwidth_bytes_per_s = 0.0", "hbm.bandwidth_bytes_per_s", "more than zero"),
        ("hbm.bandwidth_bytes_per_s = nan", "hbm.bandwidth_bytes_per_s", "not finite"),
        ("hbm.bandwidth_bytes_per_s = inf", "hbm.bandwidth_bytes_per_s", "not finite"),
        ("hbm.bandwidth_bytes_per_s = 1e31", "hbm.bandwidth_bytes_per_s", r"up to 1e\+30"),
        ("hbm.bandwidth_bytes_per_s = '7 TB/s'", "hbm.bandwidth_bytes_per_s", "not a number"),
        ("hbm.bandwidth_bytes_per_s = true", "hbm.bandwidth_bytes_per_s", "not a number"),
        ("hbm.bandwidth_bytes_per_s = 2030-01-01", "hbm.bandwidth_bytes_per_s", "not a number"),
        ("hbm.bandwith_bytes_per_s = 1", "hbm.bandwith_bytes_per_s", "not a field of a chip"),
        ("hbm.stacks = 6.5", "hbm.stacks", "whole and below"),
        (f"hbm.stacks = {2**63}", "hbm.stacks", "an integer of 64 bits"),
        ("hbm.stacks = [6]", "hbm.stacks", "a list is not a number"),
        ("hbm.efficiency = 1.01", "hbm.efficiency", "more than 1"),
        ("hbm.latency_cycles = -1", "hbm.latency_cycles", "zero or more"),
        ("hbm.kind = ''", "hbm.kind", "line of printable text"),
        ("hbm = 5", "hbm", "not a table"),
        ("noc.multicast = 1", "noc.multicast", "neither true nor false"),
        ("launch = 2030-01-01", "launch", "line of printable text"),
        ("'hbm.stacks' = 6", "hbm.stacks", "quoted key"),
        ("hbm.stacks = {source = 'x'}", "hbm.stacks", "has no value"),
        ("hbm.stacks = {value = 6, unit = 'x'}", "hbm.stacks.unit", "not part of a figure"),
        ("hbm.stacks = {value = 6, source = 1}", "hbm.stacks.source", "printable text"),
        ("hbm.stacks = {value = 6, confidence = 'sure'}", "hbm.stacks.confidence", "'sure' is not"),
        ("clusters = 8\nsram_total_bytes = 272e6", "sram_total_bytes", "less than TSRAM and CSRAM"),
        ("peak_flop_per_s.fp4 = 10e15", "peak_flop_per_s.fp4", "contradicts 2 x 32 x 32 x 64"),
        ("clock_hz = 3e9\npeak_flop_per_s.fp8 = 4.7e15", "peak_flop_per_s.fp8", "contradicts"),
        ("peak_flop_per_s.int8 = 1e15", "tile.tensor.depth_per_cycle.int8", "is missing"),
        ("peak_flop_per_s.fp5 = 1e15", "peak_flop_per_s.fp5", "not an element format"),
        ("network.per_direction_bytes_per_s = 2e12\nnetwork.switched_bytes_per_s = 400e9",
         "network.per_direction_bytes_per_s", "contradicts its fixed and switched links"),
        ("power.leakage_w = 800", "power.leakage_w", "not below tdp_w"),
        ("tile.dma.channels = 0", "tile.dma.channels", "more than zero"),
        ("tile.control.max_post_semaphores = 0",
         "tile.control.max_post_semaphores", "more than zero"),
        ("profile = 'fast'", "profile", "not a profile of this chip"),
        ("profiles.x.clock_hz = 2e9", "profiles", "do not go with a base"),
        ("profiles.x.clock = 2e9", "profiles.x.clock", "not a field of a chip"),
        ("sources.x = 1", "sources.x", "line of printable text"),
        ("aliases = 'x'", "aliases", "not a list"),
        ("name = ''", "name", "line of printable text"),
    ],
)  # fmt: skip
def test_nonsense_names_the_field(text: str, where: str, what: str) -> None:
    with pytest.raises(ChipError, match=what) as caught:
        over_maia200(text)
    assert caught.value.where == f"mine.toml: {where}"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("hbm.bandwith_bytes_per_s = 1", "did you mean 'hbm.bandwidth_bytes_per_s'?"),
        ("bandwidth_bytes_per_s = 1", "did you mean 'hbm.bandwidth_bytes_per_s'?"),
        ("profil = 'bench'", "did you mean 'profile'?"),
        ("hbm.stacks = {value = 6, sourc = 'x'}", "did you mean 'source'?"),
        ("hbm.stacks = {value = 6, confidence = 'publish'}", "did you mean 'published'?"),
        ("hbm.stacks = {value = 6, confidence = 'q'}",
         "one of published, secondary, derived, calibrated, assumed, what_if"),
    ],
)  # fmt: skip
def test_a_misspelt_word_gets_the_nearest_one(text: str, hint: str) -> None:
    with pytest.raises(ChipError) as caught:
        over_maia200(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "name", "is missing"),
        ('name = "x"', "vendor", "is missing"),
        ('name = "x"\nvendor = "y"', "launch", r"is missing \[date\]"),
        ('base = "mia200"', "base", "'mia200' is not a built-in chip"),
        ('base = "h100"\ntile.tensor.rows = 32', "tile.tensor.cols", r"is missing \[columns\]"),
        ("a = \nb = 1", "TOML", "line 1, column 5"),
        ("x = " + "[" * 3000, "TOML", "nests too deep"),
        ("x = " + "9" * 5000, "TOML", "not valid TOML"),
    ],
)
def test_a_description_that_cannot_stand_alone_says_why(text: str, where: str, what: str) -> None:
    with pytest.raises(ChipError, match=what) as caught:
        chips.loads_toml(text, where="mine.toml")
    assert caught.value.where == f"mine.toml: {where}"


def test_a_tile_needs_all_that_its_timing_reads() -> None:
    chip = chips.maia200()
    for change, where in (
        ({"noc": None}, "noc"),
        ({"clock_hz": None}, "clock_hz"),
        ({"hbm": dataclasses.replace(chip.hbm, latency_cycles=None)}, "hbm.latency_cycles"),
    ):
        present = {**chip.provenance}
        for path in list(present):
            if path == where or path.startswith(where + "."):
                del present[path]
        with pytest.raises(ChipError, match="a described tile needs it") as caught:
            dataclasses.replace(chip, **change, provenance=present)
        assert caught.value.where == where


def test_a_chip_built_in_python_is_checked_too() -> None:
    chip = chips.maia200()
    for change, where, what in (
        ({"clock_hz": 3e9}, "peak_flop_per_s.fp4", "contradicts"),
        ({"clock_hz": math.nan}, "clock_hz", "not finite"),
        ({"clusters": 4.0}, "clusters", "not of type int"),
        ({"peak_flop_per_s": {}}, "peak_flop_per_s.fp4", "has a source but no value"),
        ({"host_bytes_per_s": None}, "host_bytes_per_s", "has a source but no value"),
        ({"provenance": {}}, "launch", "has no source"),
        ({"vendor": ""}, "vendor", "line of printable text"),
    ):
        with pytest.raises(ChipError, match=what) as caught:
            dataclasses.replace(chip, **change)
        assert caught.value.where == where


def test_replace_names_what_it_cannot_change() -> None:
    for path, what in (("hbm", "is a group of figures"), ("name", "is not a field of a chip")):
        with pytest.raises(ChipError, match=what) as caught:
            chips.replace(chips.maia200(), {path: 1})
        assert caught.value.where == path


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChipError, match=r"none\.toml: cannot be read: No such file"):
        chips.get(str(tmp_path / "none.toml"))
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'name = "\xe9"')
    with pytest.raises(ChipError, match=r"latin\.toml: cannot be read: is not UTF-8 text"):
        chips.load_toml(latin)
    over = tmp_path / "over.toml"
    over.write_text('base = "maia200"\nprofile = "bench"')
    with pytest.raises(ChipError, match="'headline' is asked for, and the file is over 'bench'"):
        chips.get(str(over), "headline")


LINES = chips.dumps_toml(chips.maia200()).splitlines()
SPLICES = st.sampled_from(
    ["=", "[", "]", "{", "}", '"', "'", "\n", ".", "-", "1e400", "0x" + "f" * 5000, "nan", "[[x]]",
     "tile = 1", "value", "\x00", "é", "[hbm.stacks]", "base = 'h100'", "9" * 20, "1979-05-27", ","]
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_damaged_description_raises_nothing_but_chip_error(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        cut = data.draw(st.integers(0, len(lines[at])))
        end = data.draw(st.integers(cut, len(lines[at])))
        lines[at] = lines[at][:cut] + data.draw(SPLICES | st.text(max_size=5)) + lines[at][end:]
        if data.draw(st.booleans()):
            del lines[data.draw(st.integers(0, len(lines) - 1))]
    result = loaded("\n".join(lines))
    if isinstance(result, Chip):
        assert chips.loads_toml(chips.dumps_toml(result)) == result
    else:
        assert result.where.startswith("mine.toml: ")
        assert str(result).startswith(f"{result.where}: {result.what}")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_raises_nothing_but_chip_error(text: str) -> None:
    with pytest.raises(ChipError):
        chips.loads_toml(text)
