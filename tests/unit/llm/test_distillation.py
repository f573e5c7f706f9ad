"""Distillation: what the loss is, what the schedule does, and that a killed run goes on."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from asterope.errors import ConfigError, OutputError
from asterope.llm import TrainingPlan, TrainingState, distill, distillation_loss
from asterope.quant import prepare_qat, quantized_layers

VOCAB, WIDTH = 40, 32
PLAN = TrainingPlan(steps=12, windows_per_step=3, evaluate_every=4)


class Toy(nn.Module):
    """A module that gives logits for tokens, of linear layers that can be quantized."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.lm_head = nn.Linear(WIDTH, VOCAB)

    def forward(self, tokens):
        return self.lm_head(self.down(self.up(self.embedding(tokens)).tanh()))


@pytest.fixture
def teacher():
    return Toy()


@pytest.fixture
def windows():
    return torch.randint(0, VOCAB, (14, 12), generator=torch.Generator().manual_seed(1))


def student_of(teacher, fmt="mxfp4/same", *, learn_scales=False):
    return prepare_qat(copy.deepcopy(teacher), fmt, learn_scales=learn_scales)


def trained(teacher, windows, plan=PLAN, fmt="mxfp4/same", **options):
    student = student_of(teacher, fmt)
    return student, distill(student, teacher, windows[4:], windows[:4], plan, **options)


class KilledError(Exception):
    """A run ends here."""


def killed_at(step):
    def progress(done, steps, loss):
        if done == step:
            raise KilledError

    return progress


def test_loss_is_the_divergence_of_a_token_from_the_original():
    generator = torch.Generator().manual_seed(0)
    found, expected = torch.randn(2, 3, 5, 7, generator=generator).unbind()
    tokens = torch.randint(0, 7, (3, 5), generator=generator)
    p, q = expected[:, :-1].softmax(-1), found[:, :-1].softmax(-1)
    divergence = (p * (p / q).log()).sum(-1).mean()
    entropy = nn.functional.cross_entropy(found[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    for share in (0.0, 0.3, 1.0):
        loss = distillation_loss(found, expected, tokens, share)
        torch.testing.assert_close(loss, (1 - share) * divergence + share * entropy)
    assert float(distillation_loss(expected, expected, tokens)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("learn_scales", [False, True])
def test_training_brings_the_rounded_model_nearer(teacher, windows, learn_scales):
    student = student_of(teacher, learn_scales=learn_scales)
    plan = TrainingPlan(steps=40, relative_rate=0.01, evaluate_every=20)
    found = distill(student, teacher, windows[2:], windows[:2], plan)
    assert found.held_out_losses[found.best_step] < 0.7 * found.held_out_losses[0]


@pytest.mark.parametrize(
    ("fmt", "rate"), [("mxfp4", 0.004), ("nvfp4/fp8", 0.004), ("nvfp4/same", 0.002)]
)
def test_without_a_rate_it_is_smaller_where_inputs_have_four_bits(teacher, windows, fmt, rate):
    losses = [
        trained(teacher, windows, TrainingPlan(steps=2, relative_rate=said), fmt)[1]
        for said in (None, rate, 0.003)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_what_is_not_rounded_moves_at_a_share_of_the_rate(teacher, windows):
    plan = TrainingPlan(steps=1, warm_up=0.0, relative_rate=0.01, unrounded_share=0.1)
    student, _ = trained(teacher, windows, plan, fmt="mxfp4+r4")
    before = dict(student_of(teacher, "mxfp4+r4").named_parameters())
    for name, parameter in student.named_parameters():
        size = before[name].detach().double().square().mean().sqrt()
        moved = float((parameter - before[name]).detach().abs().max() / size)
        is_rounded = name in ("up.weight", "down.weight")
        assert moved == pytest.approx(0.01 if is_rounded else 0.001, rel=1e-2), name


def test_weights_of_least_held_out_loss_are_kept(teacher, windows):
    plan = TrainingPlan(steps=8, relative_rate=1.0, warm_up=0.0, evaluate_every=2)  # diverges
    student, found = trained(teacher, windows, plan)
    assert sorted(found.held_out_losses) == [0, 2, 4, 6, 8]
    assert found.best_step == min(found.held_out_losses, key=found.held_out_losses.get) == 0
    for mine, theirs in zip(student.parameters(), teacher.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("step", "fmt"),
    [(3, "mxfp4/same"), (4, "mxfp4/same"), (12, "mxfp4/same"), (5, "nvfp4/same+r4")],
)
def test_a_killed_run_goes_on_to_the_same_bytes(teacher, windows, tmp_path, step, fmt):
    whole, found = trained(teacher, windows, fmt=fmt)
    path = tmp_path / "state.safetensors"
    kept = TrainingState(path, "a")
    with pytest.raises(KilledError):
        trained(teacher, windows, fmt=fmt, kept=kept, progress=killed_at(step))
    seen = []
    again, refound = trained(
        teacher, windows, fmt=fmt, kept=TrainingState(path, "a"),
        progress=lambda *said: seen.append(said[0]),
    )  # fmt: skip
    first = (step - 1) // 4 * 4
    assert seen == list(range(first + 1, 13))
    assert refound == found
    for mine, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    layers = quantized_layers(whole)
    for name, layer in quantized_layers(again).items():
        assert torch.equal(layer.codes, layers[name].codes)
        assert layer.input_scale == layers[name].input_scale


def test_a_state_of_something_else_or_damaged_begins_anew(teacher, windows, tmp_path):
    path = tmp_path / "state.safetensors"
    whole, found = trained(teacher, windows, kept=TrainingState(path, "a"))
    assert path.is_file()
    assert trained(teacher, windows, kept=TrainingState(path, "b"))[1] == found
    path.write_bytes(path.read_bytes()[:1000])
    again, refound = trained(teacher, windows, kept=TrainingState(path, "a"))
    assert refound == found
    assert torch.equal(again.up.weight, whole.up.weight)


def test_a_state_that_cannot_be_written_is_named(teacher, windows, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"state\.safetensors"):
        trained(teacher, windows, kept=TrainingState(tmp_path / "file" / "state.safetensors"))


def test_rate_warms_up_and_falls():
    rates = [TrainingPlan(steps=100).rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.02, abs=0.002)
    assert math.isclose(max(rates), 1.0)


def test_all_windows_are_seen_before_any_again():
    plan = TrainingPlan(windows_per_step=3)
    seen = [index for step in range(10) for index in plan.batch(step, 10)]
    for epoch in range(3):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert seen[:10] != seen[10:20]
    assert plan.batch(7, 10) == plan.batch(7, 10)


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("windows_per_step", 0), ("cross_entropy", 1.5), ("relative_rate", -1.0)],
)
def test_a_plan_outside_its_limits_is_refused(field, value):
    with pytest.raises(ConfigError, match="is outside") as caught:
        TrainingPlan(**{field: value})
    assert caught.value.where == field


def test_a_model_without_quantized_layers_is_refused(teacher, windows):
    with pytest.raises(ConfigError, match="no quantized layer"):
        distill(Toy(), teacher, windows, windows, PLAN)
