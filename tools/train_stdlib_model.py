"""Train a small Llama language model on the Python standard library's own sources.

The corpus is the `.py` files of the running interpreter's standard library, so nothing is
downloaded. The result is a Hugging Face checkpoint in bf16 with a model card; every figure in the
card is measured here. Interrupt it at any time: the next run continues from its checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asterope.errors import AsteropeError, CheckpointError, ConfigError
from stdlib_corpus import read_corpus, train_tokenizer
from stdlib_model_release import cpu_name, measure, write_card, write_checkpoint

CHECKPOINT_EVERY_STEPS = 100
Weights = dict[str, torch.Tensor]


def option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides the weights besides the corpus; each field is a command-line option."""

    vocab_size: int = option(4096, "entries of the byte-level BPE vocabulary")
    hidden_size: int = option(256, "width of the residual stream")
    intermediate_size: int = option(768, "width of the MLP")
    num_layers: int = option(6, "decoder layers")
    num_heads: int = option(4, "attention heads")
    num_kv_heads: int = option(2, "key and value heads")
    context: int = option(512, "tokens per window")
    microbatch: int = option(2, "windows per forward pass; small enough for the cache")
    accumulate: int = option(4, "forward passes per optimizer step")
    steps: int = option(2600, "optimizer steps")
    warmup: int = option(50, "steps of linear warm-up")
    muon_lr: float = option(0.0025, "peak learning rate of Muon, for the matrices of the layers")
    adamw_lr: float = option(0.004, "peak learning rate of AdamW, for embedding and norms")
    weight_decay: float = option(0.1, "decoupled weight decay of the matrices")
    seed: int = option(0, "seed of the initial weights and of the order of windows")
    dtype: str = option("bfloat16", "matmul type; float32 on a CPU without bf16 instructions")

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.num_heads) or self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"hidden size {self.hidden_size}, {self.num_heads} heads and {self.num_kv_heads}"
                " key and value heads do not divide",
                where="the plan",
                hint="each number must be a multiple of the next, and heads of an even size",
            )
        if self.dtype not in {"bfloat16", "float32"}:
            raise ConfigError(f"{self.dtype} is neither bfloat16 nor float32", where="--dtype")

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.hidden_size // self.num_heads

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step learns from."""
        return self.context * self.microbatch * self.accumulate


def init_weights(plan: Plan) -> Weights:
    """Draw the weights under their Hugging Face names; each branch starts by adding nothing."""
    generator = torch.Generator().manual_seed(plan.seed)
    width, kv_width = plan.hidden_size, plan.num_kv_heads * plan.head_dim

    def draw(out_dim: int, in_dim: int, std: float) -> torch.Tensor:
        return torch.randn(out_dim, in_dim, generator=generator) * std

    std = width**-0.5
    weights = {"model.embed_tokens.weight": draw(plan.vocab_size, width, 0.02)}
    for index in range(plan.num_layers):
        layer = {
            "input_layernorm": torch.ones(width),
            "self_attn.q_proj": draw(width, width, std),
            "self_attn.k_proj": draw(kv_width, width, std),
            "self_attn.v_proj": draw(kv_width, width, std),
            "self_attn.o_proj": torch.zeros(width, width),
            "post_attention_layernorm": torch.ones(width),
            "mlp.gate_proj": draw(plan.intermediate_size, width, std),
            "mlp.up_proj": draw(plan.intermediate_size, width, std),
            "mlp.down_proj": torch.zeros(width, plan.intermediate_size),
        }
        weights |= {f"model.layers.{index}.{name}.weight": w for name, w in layer.items()}
    weights["model.norm.weight"] = torch.ones(width)
    return {name: weight.requires_grad_() for name, weight in weights.items()}


class Llama:
    """The training forward pass. Axes: B window, T token, C channel, H head, D within a head."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.dtype = plan, getattr(torch, plan.dtype)
        frequencies = 10000.0 ** -(torch.arange(0, plan.head_dim, 2) / plan.head_dim)
        angles = torch.outer(torch.arange(plan.context), frequencies).repeat(1, 2)
        self.cos_TD, self.sin_TD = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        causal = torch.full((plan.context, plan.context), float("-inf")).triu(1)
        self.mask = causal.repeat(plan.num_heads // plan.num_kv_heads, 1)[None].to(self.dtype)

    def rotate(self, x_BHTD: torch.Tensor) -> torch.Tensor:
        """Apply the rotary embedding, halves paired as in Hugging Face's Llama."""
        first, second = x_BHTD.chunk(2, dim=-1)
        return x_BHTD * self.cos_TD + torch.cat((-second, first), dim=-1) * self.sin_TD

    def attention(self, w: Weights, layer: str, x_BTC: torch.Tensor) -> torch.Tensor:
        """Attend by explicit scores, which in bf16 take half the time of torch's fused kernel."""
        plan, (B, T, _) = self.plan, x_BTC.shape
        q, k, v = (
            F.linear(x_BTC, w[f"{layer}.self_attn.{p}_proj.weight"])
            .view(B, T, -1, plan.head_dim)
            .transpose(1, 2)
            for p in "qkv"
        )
        # The query heads of one key head lie behind one another, as more rows of one matmul.
        flat = B * plan.num_kv_heads
        q, k = (self.rotate(x).reshape(flat, -1, plan.head_dim) for x in (q, k))
        v = v.reshape(flat, T, plan.head_dim)
        scores = torch.baddbmm(self.mask, q, k.transpose(1, 2), alpha=plan.head_dim**-0.5)
        mixed = torch.bmm(scores.softmax(-1), v).view(B, plan.num_heads, T, plan.head_dim)
        return F.linear(
            mixed.transpose(1, 2).reshape(B, T, -1), w[f"{layer}.self_attn.o_proj.weight"]
        )

    def mlp(self, w: Weights, layer: str, x_BTC: torch.Tensor) -> torch.Tensor:
        """Apply the gated MLP."""
        gate, up = (F.linear(x_BTC, w[f"{layer}.mlp.{p}_proj.weight"]) for p in ("gate", "up"))
        return F.linear(F.silu(gate) * up, w[f"{layer}.mlp.down_proj.weight"])

    def loss(self, weights: Weights, tokens_BS: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy of each token after the first, given those before it."""
        w = {name: weight.to(self.dtype) for name, weight in weights.items()}

        def norm(x_BTC: torch.Tensor, name: str) -> torch.Tensor:
            return F.rms_norm(x_BTC, x_BTC.shape[-1:], w[f"{name}.weight"], 1e-5)

        x = F.embedding(tokens_BS[:, :-1], w["model.embed_tokens.weight"])
        for index in range(self.plan.num_layers):
            layer = f"model.layers.{index}"
            x = x + self.attention(w, layer, norm(x, f"{layer}.input_layernorm"))
            x = x + self.mlp(w, layer, norm(x, f"{layer}.post_attention_layernorm"))
        logits = F.linear(norm(x, "model.norm"), w["model.embed_tokens.weight"])
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens_BS[:, 1:].flatten())


def windows(ids: np.ndarray, step: int, plan: Plan) -> torch.Tensor:
    """Return the windows of a step; the order of each epoch depends on seed and epoch alone."""
    per_epoch = (len(ids) - plan.context) // plan.context
    count = plan.microbatch * plan.accumulate
    rows = []
    for number in range(step * count, (step + 1) * count):
        epoch, index = divmod(number, per_epoch)
        rng = np.random.default_rng([plan.seed, epoch])
        start = rng.integers(plan.context) + rng.permutation(per_epoch)[index] * plan.context
        rows.append(ids[start : start + plan.context + 1])
    return torch.from_numpy(np.stack(rows))


def rate(step: int, plan: Plan) -> float:
    """Return the share of the peak learning rate: warm-up, plateau, then linear to one percent."""
    decay = (plan.steps - step) / (0.6 * plan.steps)
    return max(0.01, min(1.0, (step + 1) / plan.warmup, decay))


class Trainer:
    """Weights, optimizers and the account of a run; everything that a checkpoint holds."""

    def __init__(self, plan: Plan, ids: np.ndarray) -> None:
        self.plan, self.ids = plan, ids
        self.llama, self.weights = Llama(plan), init_weights(plan)
        matrices = [w for name, w in self.weights.items() if "_proj" in name]
        others = [w for name, w in self.weights.items() if "_proj" not in name]
        self.muon: torch.optim.Optimizer = torch.optim.Muon(
            matrices, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw: torch.optim.Optimizer = torch.optim.AdamW(
            others, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.account = {"step": 0, "loss": 0.0, "wall_s": 0.0, "cpu_s": 0.0}
        self.identity = {
            "plan": json.dumps(asdict(plan), sort_keys=True),
            "corpus": hashlib.sha256(ids.tobytes()).hexdigest(),
        }

    def step(self) -> None:
        """Take one optimizer step."""
        wall_s, cpu_s, step = time.perf_counter(), time.process_time(), int(self.account["step"])
        total = 0.0
        batch = windows(self.ids, step, self.plan)
        for tokens in batch.view(self.plan.accumulate, self.plan.microbatch, -1):
            loss = self.llama.loss(self.weights, tokens) / self.plan.accumulate
            torch.autograd.backward(loss)
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        peaks = ((self.muon, self.plan.muon_lr), (self.adamw, self.plan.adamw_lr))
        for optimizer, peak in peaks:
            optimizer.param_groups[0]["lr"] = peak * rate(step, self.plan)
            optimizer.step()
            optimizer.zero_grad()
        keep = min(0.98, step / (step + 1))
        self.account["loss"] = keep * self.account["loss"] + (1 - keep) * total
        self.account["step"] += 1
        self.account["wall_s"] += time.perf_counter() - wall_s
        self.account["cpu_s"] += time.process_time() - cpu_s

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        names = {id(weight): name for name, weight in self.weights.items()}
        tensors = {f"weight/{name}": w.detach() for name, w in self.weights.items()}
        for optimizer in (self.muon, self.adamw):
            for weight, state in optimizer.state.items():
                tensors |= {f"{key}/{names[id(weight)]}": value for key, value in state.items()}
        save_file(
            tensors,
            path.with_suffix(".partial"),
            self.identity | {"account": json.dumps(self.account)},
        )
        path.with_suffix(".partial").replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same plan and tokens."""
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            for key, value in self.identity.items():
                if metadata.get(key) != value:
                    raise CheckpointError(
                        f"this checkpoint was made with another {key}",
                        where=str(path),
                        hint="use the options and the Python that made it, or another --work",
                    )
            self.account = json.loads(metadata["account"])
            for entry in file.keys():  # noqa: SIM118 - not a mapping
                key, name = entry.split("/")
                weight = self.weights[name]
                if key == "weight":
                    weight.data.copy_(file.get_tensor(entry))
                else:
                    optimizer = self.muon if "_proj" in name else self.adamw
                    optimizer.state[weight][key] = file.get_tensor(entry)


def train(trainer: Trainer, checkpoint: Path, minutes: float | None) -> bool:
    """Train to the end of the plan, or for `minutes`; return whether the plan is complete."""
    plan, account = trainer.plan, trainer.account
    stop_s = math.inf if minutes is None else time.monotonic() + 60 * minutes
    columns = (
        *Progress.get_default_columns()[:-1],
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(
            "training", total=plan.steps, completed=int(account["step"]), note=""
        )
        while account["step"] < plan.steps:
            trainer.step()
            done = int(account["step"])
            speed = done * plan.tokens_per_step / account["wall_s"]
            note = f"loss {account['loss']:.3f}  {speed:.0f} tokens/s"
            progress.update(task, completed=done, note=note)
            paused = time.monotonic() >= stop_s
            if done % CHECKPOINT_EVERY_STEPS == 0 or done == plan.steps or paused:
                trainer.save(checkpoint)
                if not progress.console.is_terminal:
                    progress.console.print(f"step {done} of {plan.steps}  {note}")
            if paused:
                break
    return account["step"] == plan.steps


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Plan]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    stdlib, work = Path(sysconfig.get_path("stdlib")), Path("build/stdlib-model")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--work", type=Path, default=work, help="folder of the checkpoint")
    parser.add_argument("--corpus", type=Path, default=stdlib, help="folder of the sources")
    parser.add_argument("--minutes", type=float, help="pause after this time; run again to go on")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    plan = parser.add_argument_group("the plan")
    for item in fields(Plan):
        flag, kind = "--" + item.name.replace("_", "-"), type(item.default)
        plan.add_argument(flag, type=kind, default=item.default, help=item.metadata["help"])
    options = parser.parse_args(arguments)
    return options, Plan(**{item.name: getattr(options, item.name) for item in fields(Plan)})


def run(options: argparse.Namespace, plan: Plan) -> None:
    """Train, or go on training; when the plan is complete, write and measure the model."""
    say = Console(stderr=True).print
    torch.set_num_threads(options.threads)
    corpus = read_corpus(options.corpus)
    texts = list(corpus.train.values())
    tokenizer = train_tokenizer(texts, plan.vocab_size)
    ids = np.concatenate([document.ids for document in tokenizer.encode_batch(texts)])
    say(f"{len(texts)} modules, {len(ids):,} tokens, {plan.steps} steps")
    trainer = Trainer(plan, ids)
    options.work.mkdir(parents=True, exist_ok=True)
    checkpoint = options.work / "checkpoint.safetensors"
    if checkpoint.exists():
        trainer.load(checkpoint)
        say(f"continuing from step {trainer.account['step']} of {checkpoint}")
    if not train(trainer, checkpoint, options.minutes):
        say(f"paused at step {trainer.account['step']}; the same command goes on")
        return
    write_checkpoint(options.out, asdict(plan), trainer.weights, tokenizer)
    say("measuring the held-out modules")
    changed = [item for item in fields(Plan) if getattr(plan, item.name) != item.default]
    flags = [f"--{item.name.replace('_', '-')} {getattr(plan, item.name)}" for item in changed]
    facts = {
        "command": " ".join(["python tools/train_stdlib_model.py --out DIRECTORY", *flags]),
        "plan": asdict(plan),
        "corpus": corpus.describe()
        | {"python": platform.python_version(), "train_tokens": len(ids)},
        "run": trainer.account
        | {
            "tokens": plan.steps * plan.tokens_per_step,
            "cpu": cpu_name(),
            "threads": options.threads,
            "torch": torch.__version__,
        },
        "held_out": measure(options.out, corpus.held_out, plan.seed),
    }
    write_card(options.out, facts)
    print(json.dumps(facts["held_out"]))


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        run(*parse(arguments))
    except (AsteropeError, OSError, SafetensorError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
