from __future__ import annotations

import pickle

import pytest

from asterope import chips
from asterope.chips import Confidence
from asterope.errors import ChipError

EVERY = [(name, profile) for name in chips.names() for profile in chips.profiles(name)]

# bf16 peak [Tflop/s], HBM [bytes], HBM [TB/s], network per direction [GB/s], TDP [W]
PUBLIC = {
    "a100": (312, 80 * 2**30, 2.039, 300, 400),
    "b200": (2250, 180 * 2**30, 7.7, 900, 1000),
    "h100": (989, 80 * 2**30, 3.35, 450, 700),
    "h200": (989, 141 * 2**30, 4.8, 450, 700),
    "maia100": (800, 64 * 10**9, 1.8, 600, 700),
    "maia200": (1179.648, 216 * 10**9, 7.0, 1400, 750),
    "mi300x": (1307, 192 * 10**9, 5.3, 448, 750),
    "mi355x": (2516, 288 * 10**9, 8.0, 535.5, 1400),
    "tpu7x": (2307, 192 * 10**9, 7.38, 600, 800),
    "trainium2": (667, 96 * 2**30, 2.9, 640, 500),
    "trainium3": (671, 144 * 2**30, 4.9, 1280, 1000),
}


def test_the_catalogue_is_the_chips_we_have_public_figures_for() -> None:
    assert chips.names() == tuple(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_headline_figures_are_the_public_ones(name: str) -> None:
    chip = chips.get(name)
    bf16, capacity, bandwidth, network, tdp = PUBLIC[name]
    assert chip.name == chip.base == name
    assert chip.peak_flop_per_s["bf16"] == pytest.approx(bf16 * 1e12, rel=1e-12)
    assert chip.hbm.capacity_bytes == capacity
    assert chip.hbm.bandwidth_bytes_per_s == pytest.approx(bandwidth * 1e12, rel=1e-12)
    assert chip.network.per_direction_bytes_per_s == pytest.approx(network * 1e9, rel=1e-12)
    assert chip.power.tdp_w == tdp


@pytest.mark.parametrize(("name", "profile"), EVERY)
def test_no_figure_without_unit_source_and_confidence(name: str, profile: str) -> None:
    rows = list(chips.figures(chips.get(name, profile)))
    assert len(rows) > 12
    for row in rows:
        assert row.unit, row.path
        assert len(row.source) > 20, row.path
        assert row.confidence in set(Confidence) - {Confidence.WHAT_IF}, row.path
        assert len(row.doc) > 4, row.path


@pytest.mark.parametrize(("name", "profile"), EVERY)
def test_an_assumption_says_so_in_its_source_and_only_there(name: str, profile: str) -> None:
    for row in chips.figures(chips.get(name, profile)):
        if "Assumption of Asterope" in row.source:
            assert row.confidence is Confidence.ASSUMED, row.path
        if row.source.startswith("Arithmetic"):
            assert row.confidence is Confidence.DERIVED, row.path


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "maia200"])
def test_a_chip_without_calibration_uses_the_makers_bandwidth_and_says_so(name: str) -> None:
    chip = chips.get(name)
    assert chip.hbm.efficiency == 1.0
    assert chip.hbm_effective_bytes_per_s == chip.hbm.bandwidth_bytes_per_s
    assert chip.provenance["hbm.efficiency"].confidence is Confidence.ASSUMED
    assert "not calibrated" in chip.provenance["hbm.efficiency"].note


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "maia200"])
def test_a_chip_whose_inside_is_not_public_says_so_when_asked_for_it(name: str) -> None:
    chip = chips.get(name)
    assert (chip.num_tiles is None) == (chip.achieved is None)
    assert (chip.vector_flop_per_s, chip.idle_w) == (None, None)
    assert chip.macs_per_s("bf16") == chip.peak_flop_per_s["bf16"] / 2
    with pytest.raises(ChipError, match=f"^tile: the inside of {name} is not public") as caught:
        chip.inside()
    assert "roofline" in caught.value.hint


@pytest.mark.parametrize(
    ("profile", "peaks"),
    [("bench", (9437, 4719, 1180)), ("headline", (10145, 5072, 1268))],
)
def test_maia200_peaks_are_the_published_ones(profile: str, peaks: tuple[int, ...]) -> None:
    chip = chips.maia200(profile)
    for element, tflops in zip(("fp4", "fp8", "bf16"), peaks, strict=True):
        assert chip.peak_flop_per_s[element] == pytest.approx(tflops * 1e12, rel=1e-3)
        assert 2 * chip.macs_per_s(element) == pytest.approx(tflops * 1e12, rel=1e-3)
    assert chip.peak_flop_per_s["fp6"] == chip.peak_flop_per_s["fp8"]


def test_maia200_is_36_tiles_whose_vector_rate_and_bandwidth_add_up() -> None:
    chip = chips.maia200()
    inside = chip.inside()
    assert inside.num_tiles == chip.num_tiles == 36
    assert inside.clock_hz == 2e9
    assert inside.tile.tensor.macs_per_cycle("fp4") == 65536
    assert chip.vector_flop_per_s == pytest.approx(36 * 3.07e12, rel=1e-3)
    assert chip.hbm_effective_bytes_per_s == pytest.approx(3.6e12)
    assert chips.maia200("headline").clock_hz == 77.4e9 / 36


@pytest.mark.parametrize("element", ["fp4", "fp8"])
def test_maia200_at_its_headline_peak_draws_its_tdp(element: str) -> None:
    """Every tensor unit, both operand feeds, the effective HBM, clock and leakage make 750 W."""
    chip = chips.maia200("headline")
    inside = chip.inside()
    energy, tensor = inside.energy_pj, inside.tile.tensor
    operands = 2 * tensor.operand_bytes_per_cycle * inside.num_tiles * inside.clock_hz
    hbm = chip.hbm_effective_bytes_per_s
    picowatts = (
        chip.macs_per_s(element) * energy.mac[element]
        + operands * energy.tsram_byte
        + hbm * (energy.hbm_byte + energy.noc_byte + energy.tsram_byte)
    )
    assert chip.idle_w is not None
    assert chip.power.tdp_w == 750
    assert chip.idle_w + picowatts * 1e-12 == pytest.approx(750, rel=0.01)
    peak = next(p for p in chips.peak_power(chip) if p.format == element)
    assert peak.power_w == pytest.approx(chip.idle_w + picowatts * 1e-12)
    assert peak.flop_per_j == pytest.approx(peak.claimed_flop_per_j, rel=0.02)


def test_the_peaks_of_a_chip_without_energies_take_its_tdp() -> None:
    for peak in chips.peak_power(chips.get("h100")):
        assert peak.parts_w == {"tdp": 700}
        assert peak.flop_per_j == peak.peak_flop_per_s / 700


@pytest.mark.parametrize(("share", "voltage"), [(1.0, 1.0), (0.75, 0.8), (0.5, 0.6), (0.1, 0.6)])
def test_voltage_falls_with_the_clock_to_its_least(share: float, voltage: float) -> None:
    scaling = {"power.scaling.least_voltage": 0.6, "power.scaling.least_voltage_clock": 0.5}
    chip = chips.replace(chips.maia200(), scaling)
    assert chip.power.voltage(share) == pytest.approx(voltage)
    assert chips.get("h100").power.voltage(share) == 1


def test_the_clock_is_paid_for_per_cycle_so_a_slower_profile_idles_lower() -> None:
    bench, headline = chips.maia200("bench"), chips.maia200("headline")
    assert bench.idle_w == pytest.approx(75 + 70)
    assert headline.idle_w == pytest.approx(75 + 75.25)


def test_energy_of_the_network_stays_under_the_published_bound() -> None:
    assert chips.maia200().inside().energy_pj.network_byte <= 8 * 8


def test_the_semaphore_conflict_between_slides_and_paper_is_on_record() -> None:
    chip = chips.maia200()
    assert chip.inside().tile.control.max_pre_semaphores == 3
    assert "the paper says 2" in chip.provenance["tile.control.max_pre_semaphores"].note


def test_a_name_may_carry_a_profile_and_any_spelling() -> None:
    assert chips.get("maia200:headline") == chips.get("Maia-200", "headline")
    assert chips.get("maia200").profile == "bench"
    assert chips.get("tpu-v7") is chips.get("TPU7x")


def test_an_unknown_chip_gets_the_nearest_name_and_the_list() -> None:
    with pytest.raises(ChipError, match=r"^chip: 'h20' is not a built-in chip") as caught:
        chips.get("h20")
    assert caught.value.hint.startswith("did you mean 'h200'?")
    assert all(name in caught.value.hint for name in chips.names())
    with pytest.raises(ChipError, match="not a built-in chip") as caught:
        chips.profiles("cerebras")
    assert caught.value.hint.startswith("the chips are a100,")


def test_an_unknown_profile_gets_the_list() -> None:
    with pytest.raises(ChipError, match=r"^profile: 'fast' is not a profile") as caught:
        chips.get("maia200", "fast")
    assert caught.value.hint == "it has bench, headline"
    with pytest.raises(ChipError, match="'bench' in the name and 'headline' beside it differ"):
        chips.get("maia200:bench", "headline")


def test_a_missing_rate_names_the_formats_there_are() -> None:
    with pytest.raises(ChipError, match="a100 has no tensor rate for 'fp8'") as caught:
        chips.get("a100").macs_per_s("fp8")
    assert caught.value.where == "peak_flop_per_s.fp8"
    assert caught.value.hint == "it has bf16, fp32, int8, int4"


@pytest.mark.parametrize(("name", "profile"), EVERY)
def test_a_chip_is_a_value_hashable_picklable_and_frozen(name: str, profile: str) -> None:
    chip = chips.get(name, profile)
    copy = pickle.loads(pickle.dumps(chip))
    assert copy == chip
    assert hash(copy) == hash(chip)
    with pytest.raises(AttributeError):
        chip.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        chip.peak_flop_per_s["bf16"] = 1.0  # type: ignore[index]


def test_the_door_exports_what_it_says_in_order() -> None:
    def kind(name: str) -> int:
        return 0 if name.isupper() else 1 + name[0].islower()

    assert chips.__all__ == sorted(chips.__all__, key=lambda name: (kind(name), name))
    assert all(hasattr(chips, name) for name in chips.__all__)
