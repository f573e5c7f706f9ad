"""Measured closed loops of serving, and the server and requests that each was measured with.

What a row does not say is taken from the public scripts of its source, named beside each value.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.validation.served_models import kv_bytes_per_token, transformer, weight_bytes

from asterope.chips import Chip
from asterope.operators import Execution, Parallel, Precision, Transformer, decode_step
from asterope.twin import Request, Server

__all__ = [
    "Served",
    "execution_of",
    "in_flight",
    "is_possible",
    "model_of",
    "precision_of",
    "read",
    "requests_of",
    "server_of",
]

PUBLISHED = {
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2.5",
    "openai/gpt-oss-120b": "gpt-oss-120b",
}
_PRECISIONS: Mapping[str, Precision] = {
    "bf16": Precision(),
    "fp8": Precision(rate="fp8", a_bits=8, b_bits=8),
    "fp4": Precision(moe_rate="bf16", moe_bits=4.25),  # experts alone are in four bits
}
# Weights of these are scaled in blocks; one operator rounds and multiplies.
_BLOCK_SCALED = ("Qwen/Qwen3-235B-A22B-FP8", "MiniMaxAI/MiniMax-M2.5")
_ROUNDS = 10
"""Requests for each one in flight: genai_perf_runner.py of aiconfigurator in 2025, InferenceX."""
_HELD_BYTES = 4e9
"""Taken for activations, buffers of collectives and graphs; no source."""
_MEMORY_SHARE: Mapping[str, float] = {
    "vllm": 0.9,  # gpu_memory_utilization, its default and InferenceX's setting
    "sglang": 0.84,  # mem_fraction_static by server_args.py for 80 GB
    "trtllm": 0.8,  # free_gpu_memory_fraction in aiconfigurator's template, of what weights leave
}
_RESERVED_OUTPUT: Mapping[str, float] = {
    "trtllm": 1.0,  # GUARANTEED_NO_EVICT, its default
    "vllm": 0.0,  # admits a request whose prompt fits
    "sglang": 0.5,  # between 0.7 and 0.1 by how long it went without taking requests back
}
_HOST_STEP_S, _HOST_SEQUENCE_S, _TOKEN_S = 2.1e-3, 60e-6, 108e-6
"""TensorRT-LLM 1.0.0rc3's host: the least time of a step, by steps on eight chips that no kernels
fill; of each sequence in it; and of a token that the front-end sends, by the 9,250 a second that no
row on two to eight chips exceeds."""
_ONE_MORE = ("meta-llama/Llama-3.1-8B-Instruct",)
"""Rows in which a request waits as if one more were in flight than the server has places for: by
1 / concurrency of a whole request, for every length of output and every number of chips."""
_SHOWN_LATE = ("Qwen/Qwen3-32B",)
"""Models whose first token TensorRT-LLM's clients see with the second, by one step's wait more than
its scheduler explains, on any number of chips; other servers' rows of them do not have it."""
_SHORTEST = 0.8
"""RANDOM_RANGE_RATIO of InferenceX: lengths are spread evenly from this share to all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One measured closed loop.

    `source` is aiconfigurator (fixed lengths) or InferenceX (spread lengths). `known` says that
    the source states how many requests were in flight.
    """

    model: str
    server: str
    precision: str
    parallel: Parallel
    isl: int
    osl: int
    concurrency: int
    source: str
    known: bool
    ttft_s: float
    tpot_s: float

    @property
    def words(self) -> str:
        """Say what was measured."""
        cut = f"TP{self.parallel.tensor} EP{self.parallel.expert}"
        return f"{cut}, {self.isl} + {self.osl} tokens, {self.concurrency} in flight"


def read(path: Path) -> list[Served]:
    """Read the closed loops of aggregated serving on H100, each with both of its times."""
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            wanted = row["scenario"] == "agg serving" and row["hardware"] == "H100-SXM-80GB"
            if wanted and row["model"] in PUBLISHED and row["metric"][:4] in ("ttft", "tpot"):
                key = row["source"], row["parallelism"]
                found.setdefault(key, {})[row["metric"][:4]] = row
    return list(_served(found.values()))


def _served(pairs: Iterator[Mapping[str, Mapping[str, str]]]) -> Iterator[Served]:
    for pair in pairs:
        row = pair["tpot"]
        cut = dict(re.findall(r"(?:^|;)(TP|MoE-EP)(\d+)", row["parallelism"]))
        yield Served(
            model=row["model"], server=row["software"],
            precision={"nan": "bf16"}.get(row["precision"][:3], row["precision"][:3]),
            parallel=Parallel(tensor=int(cut["TP"]), expert=max(1, int(cut.get("MoE-EP", 1)))),
            isl=int(row["isl"]), osl=int(row["osl"]),
            concurrency=int(row["batch_or_concurrency"]),
            source="InferenceX" if "source_file=20" in row["notes"] else "aiconfigurator",
            known="_c_" not in row["source"],
            ttft_s=float(pair["ttft"]["value"]) * 1e-3, tpot_s=float(row["value"]) * 1e-3,
        )  # fmt: skip


def precision_of(row: Served) -> Precision:
    """Return the formats that a row was served in."""
    found = _PRECISIONS[row.precision]
    return dataclasses.replace(found, block_scaled=row.model in _BLOCK_SCALED)


def model_of(row: Served) -> Transformer:
    """Return the shape of a row's model; TensorRT-LLM keeps the cache of fp8 checkpoints in fp8."""
    narrow = row.server == "trtllm" and row.precision == "fp8"
    return transformer(PUBLISHED[row.model], cache_bits=8 if narrow else 16)


def execution_of(row: Served) -> Execution:
    """Return how the server launches.

    TensorRT-LLM rounds whole tensors to fp8 in kernels apart, and normalizes heads in the kernel
    that rotates them (fused_qk_norm_rope); its host takes half a millisecond to launch a layer
    without experts, as the shortest steps with prompts say that have fewer tokens.
    """
    own = row.server == "trtllm"
    dense = model_of(row).moe is None
    return Execution(
        fused_rounding=not own or row.model in _BLOCK_SCALED, fused_head_norms=own,
        host_layer_s=0.5e-3 if own and dense else Execution().host_layer_s,
    )  # fmt: skip


def in_flight(row: Served) -> int:
    """Return how many requests were in flight; see `_ONE_MORE`."""
    return row.concurrency + (row.model in _ONE_MORE)


def server_of(row: Served, chip: Chip) -> Server:
    """Return the server's limits.

    aiconfigurator writes max_batch_size = concurrency, max_num_tokens = concurrency + isl + 1500,
    no chunked prefill and the overlap scheduler for TensorRT-LLM; dense models read one prompt of
    1,024 tokens a step there all the same, by the TTFT of those that run in few steps. vLLM 0.12
    chunks, and decides a step when the last is over. InferenceX starts vLLM with
    async-scheduling, 8192 max-num-batched-tokens and max-num-seqs = concurrency. SGLang reads
    prompts before all else, 16384 tokens at a time (max_prefill_tokens), with its overlap
    scheduler. vLLM replays graphs between the attention of layers; the other two launch the
    kernels of a prompt one by one.
    """
    eager, own = row.server != "vllm", row.server == "trtllm"
    launch_s = execution_of(row).host_layer_s * model_of(row).num_layers if eager else 0.0
    tokens = row.concurrency + row.isl + 1500
    if row.source == "InferenceX":
        tokens = 8192
    elif row.server == "sglang":
        tokens = 16384
    elif own and model_of(row).moe is None:
        tokens = row.concurrency + row.isl
    return Server(
        max_batch=row.concurrency, max_step_tokens=tokens, kv_tokens=_kv_tokens(row, chip),
        reserved_output=_RESERVED_OUTPUT[row.server], chunked=row.server != "trtllm",
        prompts_first=row.server == "sglang", launch_s=launch_s,
        schedules_ahead=row.server != "vllm" or row.source == "InferenceX",
        host_step_s=_HOST_STEP_S if own else 0.0, token_s=_TOKEN_S if own else 0.0,
        host_sequence_s=_HOST_SEQUENCE_S if own else 0.0,
        first_shown=2 if own and row.model in _SHOWN_LATE else 1,
    )  # fmt: skip


def _kv_tokens(row: Served, chip: Chip) -> int:
    model = model_of(row)
    weights = weight_bytes(model, precision_of(row), row.parallel)
    memory, share = chip.hbm.capacity_bytes, _MEMORY_SHARE[row.server]
    if row.server == "trtllm":
        free = (memory - weights - _HELD_BYTES) * share
    else:
        free = memory * share - weights - _HELD_BYTES
    return max(1, int(free / kv_bytes_per_token(model, row.parallel)))


def is_possible(row: Served, chip: Chip) -> bool:
    """Say whether the memory can have delivered what a step of all requests in flight reads.

    Of requests no more than fit the cache whole, each with no more than its shortest prompt.
    """
    shortest = row.isl if row.source == "aiconfigurator" else round(_SHORTEST * row.isl)
    fitting = max(1, _kv_tokens(row, chip) // (row.isl + row.osl))
    step = decode_step(
        chip, model_of(row), batch=min(row.concurrency, fitting), context=shortest,
        precision=precision_of(row), parallel=row.parallel,
    )  # fmt: skip
    return step.hbm_bytes <= row.tpot_s * chip.hbm.bandwidth_bytes_per_s


def requests_of(row: Served) -> list[Request]:
    """Return the requests of a row, in order; lengths that are spread follow a fixed sequence."""
    count = _ROUNDS * row.concurrency
    if row.source == "aiconfigurator":
        return [Request(prompt=row.isl, output=row.osl)] * count
    # Steps of two numbers whose multiples spread evenly, one for each length.
    places = itertools.accumulate([(0.6180339887, 0.7548776662)] * count, _next_place)
    return [Request(prompt=_length(row.isl, a), output=_length(row.osl, b)) for a, b in places]


def _next_place(at: tuple[float, float], step: tuple[float, float]) -> tuple[float, float]:
    return (at[0] + step[0]) % 1, (at[1] + step[1]) % 1


def _length(most: int, place: float) -> int:
    return round(most * (_SHORTEST + (1 - _SHORTEST) * place))
