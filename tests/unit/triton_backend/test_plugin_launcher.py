"""What users do with kernels: hooks, `triton.compile`, preloading, keys, dumps, options."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading

import pytest
import torch
import triton
import triton.language as tl
from triton import knobs
from triton.language.extra import cuda

from asterope import chips
from asterope.errors import CapacityError, IRError, KernelError, UnsupportedError
from asterope.runtime import simulate
from library_kernels import random
from sim_programs import changed

SCALE = tl.constexpr(3)


@triton.jit
def scale_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    on = offs < n
    tl.store(y_ptr + offs, tl.load(x_ptr + offs, mask=on) * SCALE, mask=on)


SIGNATURE = {"x_ptr": "*fp32", "y_ptr": "*fp32", "n": "i32", "BLOCK": "constexpr"}


@pytest.fixture
def fresh_knobs(tmp_path):
    """Let a test set Triton's knobs, with an empty cache of its own."""
    with knobs.cache.scope(), knobs.runtime.scope(), knobs.compilation.scope():
        knobs.cache.dir = str(tmp_path / "triton")
        yield knobs


# -- compiled kernels ------------------------------------------------------------------------------
def test_a_compiled_source_can_be_launched():
    source = triton.compiler.ASTSource(scale_kernel, SIGNATURE, {"BLOCK": 64})
    compiled = triton.compile(source)
    x, y = random(100), torch.zeros(100)
    compiled[(2, 1, 1)](x, y, 100, 64)
    assert torch.equal(y, 3 * x)
    compiled[(2, 1, 1)](x, y, 100)  # the last constexprs may be left out
    with pytest.raises(KernelError, match=r"scale_kernel: takes 4 arguments, constexprs incl.* 2"):
        compiled[(2, 1, 1)](x, y)


def test_a_compiled_kernel_shows_every_stage_and_its_resources():
    compiled = scale_kernel.warmup(torch.float32, torch.float32, 100, BLOCK=64, grid=(1,))
    assert set(compiled.asm) == {"source", "ttir", "tileir"}
    assert "tt.load" in compiled.asm["source"]
    assert "tt.load" in compiled.asm["ttir"]
    assert compiled.asm["tileir"].decode().startswith("kernel @scale_kernel(")
    compiled._init_handles()
    assert (compiled.name, compiled.n_spills) == ("scale_kernel", 0)
    assert compiled.n_regs > 0
    assert compiled.metadata.num_stages == 2


def test_a_kernel_can_be_preloaded_from_what_its_hook_was_told(fresh_knobs):
    told = []
    fresh_knobs.runtime.jit_cache_hook = lambda **given: told.append(given["compile"])
    compiled = scale_kernel.warmup(torch.float32, torch.float32, 100, BLOCK=32, grid=(1,))
    scale_kernel.device_caches.clear()
    preloaded = scale_kernel.preload(told[0]["specialization_data"])
    assert preloaded.hash == compiled.hash
    count = len(told)
    x, y = random(100), torch.zeros(100)
    scale_kernel[(4,)](x, y, 100, BLOCK=32)
    assert torch.equal(y, 3 * x)
    assert len(told) == count, "it was compiled again"


# -- hooks -----------------------------------------------------------------------------------------
def test_the_listener_hears_of_misses_and_hits_and_their_times(fresh_knobs):
    heard = []
    fresh_knobs.compilation.listener = lambda **given: heard.append(given)
    for _ in range(2):
        scale_kernel.device_caches.clear()
        scale_kernel.warmup(torch.float32, torch.float32, 100, BLOCK=16, grid=(1,))
    assert [h["cache_hit"] for h in heard] == [False, True]
    assert [stage for stage, _ in heard[0]["times"].lowering_stages] == ["ttir", "tileir"]
    assert heard[0]["times"].total > 0


def test_a_cache_hook_may_forbid_a_compilation(fresh_knobs):
    fresh_knobs.runtime.jit_cache_hook = lambda **_: True
    assert scale_kernel.warmup(torch.float32, torch.float32, 7, BLOCK=128, grid=(1,)) is None


def test_a_stage_can_be_inspected_and_replaced(fresh_knobs):
    seen = []

    def inspect(backend=None, stages=None, options=None, language=None, capability=None):
        if stages is not None:
            convert = stages["tileir"]
            stages["tileir"] = lambda module, data: (
                seen.append(str(module)) or convert(module, data)
            )
        return "key", "hash"

    fresh_knobs.runtime.add_stages_inspection_hook = inspect
    scale_kernel.device_caches.clear()
    x, y = random(40), torch.zeros(40)
    scale_kernel[(1,)](x, y, 40, BLOCK=64)
    scale_kernel.device_caches.clear()
    assert torch.equal(y, 3 * x)
    assert "tt.store" in seen[0]


# -- keys ------------------------------------------------------------------------------------------
def load_module(path, body):
    head = "import triton\nimport triton.language as tl\n\n"
    path.write_text(f"{head}@triton.jit\ndef kernel(y_ptr):\n    {body}\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.kernel


def test_a_kernel_of_another_file_and_a_later_version_of_it_are_their_own(tmp_path):
    y = torch.zeros(1)
    found = []
    for number in (1.0, 2.0, 1.0):
        load_module(tmp_path / "mine.py", f"tl.store(y_ptr, {number})")[(1,)](y)
        found.append(y.item())
    assert found == [1, 2, 1]


def test_a_global_that_changes_after_compiling_is_refused(monkeypatch):
    x, y = random(16), torch.zeros(16)
    scale_kernel[(1,)](x, y, 16, BLOCK=16)
    monkeypatch.setitem(globals(), "SCALE", tl.constexpr(4))
    with pytest.raises(RuntimeError, match="Global variable SCALE has changed"):
        scale_kernel[(1,)](x, y, 16, BLOCK=16)


def test_the_cache_folder_and_dumps_are_where_the_user_says(fresh_knobs, tmp_path):
    fresh_knobs.compilation.dump_ir = True
    fresh_knobs.cache.dump_dir = str(tmp_path / "dump")
    scale_kernel.device_caches.clear()
    scale_kernel.warmup(torch.float32, torch.float32, 9, BLOCK=16, grid=(1,))
    for folder in ("triton", "dump"):
        names = {p.suffix for p in (tmp_path / folder).rglob("scale_kernel.*")}
        assert {".ttir", ".tileir"} <= names
    fresh_knobs.compilation.always_compile = True
    (written,) = (tmp_path / "triton").rglob("scale_kernel.tileir")
    before = written.stat().st_mtime_ns
    scale_kernel.device_caches.clear()
    scale_kernel.warmup(torch.float32, torch.float32, 9, BLOCK=16, grid=(1,))
    assert written.stat().st_mtime_ns > before


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"kernel @scale_kernel(%x_ptr: ptr<fp32>"])
def test_a_damaged_file_of_tritons_cache_is_named(fresh_knobs, tmp_path, damage):
    x, y = random(16), torch.zeros(16)
    scale_kernel.device_caches.clear()
    scale_kernel[(1,)](x, y, 16, BLOCK=16)
    (written,) = (tmp_path / "triton").rglob("scale_kernel.tileir")
    written.write_bytes(damage)
    scale_kernel.device_caches.clear()
    with pytest.raises(IRError, match=r"(?s)triton: the compiled .* scale_kernel.*delete"):
        scale_kernel[(1,)](x, y, 16, BLOCK=16)
    scale_kernel.device_caches.clear()


def test_threads_may_compile_and_launch_one_kernel_at_once():
    results, errors = {}, []

    def work(i):
        try:
            x, y = random(1000, seed=i), torch.zeros(1000)
            for block in (128, 256, 512):
                scale_kernel[(triton.cdiv(1000, block),)](x, y, 1000, BLOCK=block)
            results[i] = torch.equal(y, 3 * x)
        except Exception as error:
            errors.append(error)

    scale_kernel.device_caches.clear()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert results == dict.fromkeys(range(4), True)


# -- wrong use -------------------------------------------------------------------------------------
@pytest.mark.parametrize("option", ["num_warps", "num_ctas"])
@pytest.mark.parametrize("value", [3, 0, -4])
def test_counts_of_warps_are_powers_of_two(option, value):
    with pytest.raises(AssertionError, match=f"{option} is {value}, and must be a power of 2"):
        scale_kernel.warmup(torch.float32, torch.float32, 9, BLOCK=16, grid=(1,), **{option: value})


def test_an_unknown_option_is_named():
    with pytest.raises(KeyError, match="num_wraps"):
        scale_kernel.warmup(torch.float32, torch.float32, 9, BLOCK=16, grid=(1,), num_wraps=4)


def test_a_grid_of_fractions_is_refused():
    x, y = random(16), torch.zeros(16)
    with pytest.raises(KernelError, match=r"scale_kernel: a grid of \(1, 1\.5, 1\)"):
        scale_kernel[(1, 3 / 2)](x, y, 16, BLOCK=16)


@triton.jit
def waiting_kernel(y_ptr):
    cuda.gdc_wait()
    tl.store(y_ptr, 1.0)


@triton.jit
def assembly_kernel(y_ptr):
    one = tl.inline_asm_elementwise(
        "mov.u32 $0, 1;", "=r,r", [tl.load(y_ptr)], dtype=tl.float32, is_pure=True, pack=1
    )
    tl.store(y_ptr, one)


@pytest.mark.parametrize(("kernel", "line"), [(waiting_kernel, 2), (assembly_kernel, 3)])
def test_a_call_that_is_for_one_gpu_only_is_refused_with_its_line(kernel, line):
    line += kernel.fn.__code__.co_firstlineno
    with pytest.raises(UnsupportedError, match=rf"test_plugin_launcher\.py:{line}:\d+: .*asm"):
        kernel[(1,)](torch.zeros(1))


def test_a_block_too_large_for_the_chip_is_refused_with_its_line():
    small = changed(chips.maia200(), tile__tsram__capacity_bytes=2048)
    line = scale_kernel.fn.__code__.co_firstlineno + 4
    with simulate(small), pytest.raises(CapacityError, match=rf"launcher\.py:{line}:\d+: .*2048"):
        scale_kernel[(1,)](random(9), torch.zeros(9), 9, BLOCK=4096)


# -- another process -------------------------------------------------------------------------------
@pytest.mark.slow
def test_another_process_finds_what_this_one_compiled(tmp_path):
    script = tmp_path / "twice.py"
    script.write_text(
        "import torch, triton, triton.language as tl\n"
        "@triton.jit\n"
        "def kernel(y_ptr):\n"
        "    tl.store(y_ptr, 5.0)\n"
        "hits = []\n"
        "triton.knobs.compilation.listener = lambda **given: hits.append(given['cache_hit'])\n"
        "y = torch.zeros(1)\n"
        "kernel[(1,)](y)\n"
        "print(y.item(), *hits)\n"
    )
    env = {
        **os.environ,
        "TRITON_CACHE_DIR": str(tmp_path / "a"),
        "ASTEROPE_CACHE_DIR": str(tmp_path),
    }
    command = [sys.executable, "-W", "ignore", str(script)]
    outputs, objects = [], []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        outputs.append(done.stdout.split())
        objects.append(sorted(tmp_path.rglob("*.o")))
    assert outputs == [["5.0", "False"], ["5.0", "True"]]
    assert objects[0] == objects[1]
