"""Tasks of lm-evaluation-harness: our answers against those of its own model class."""

from __future__ import annotations

import json
import warnings

import pytest

from asterope import api
from asterope.errors import ConfigError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from asterope.api.harness import HarnessModel

TASK = """\
task: next_piece
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{code}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
SAMPLES = (
    ("for i in range(10", (" def", "):"), 1),
    ("class A:\n    def __init__(self", ("):", "\n\n\n"), 0),
    ("if x is not None", (":", "="), 0),
)
TEXT = "import os\n\n\ndef main(args):\n    return os.path.join(*args)\n"
# The harness and what it imports leave files to the collector, and warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model():
    return api.load(api.SHIPPED_NAME, dtype="float32")


@pytest.fixture
def task(tmp_path):
    data = tmp_path / "data.jsonl"
    rows = ({"code": code, "choices": c, "label": label} for code, c, label in SAMPLES)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "task.yaml"
    file.write_text(TASK.format(data=data))
    return file


def asked(kind, *args):
    return [Instance(request_type=kind, doc={}, arguments=arg, idx=i) for i, arg in enumerate(args)]


@pytest.mark.slow
def test_scores_name_models_tasks_and_metrics(model, task):
    models = {"original": model, "mxfp4": model.quantize("mxfp4")}
    scores = api.score_tasks(models, [str(task)], limit=2)
    assert [(s.model, s.task, s.metric, s.num_samples) for s in scores] == [
        ("original", "next_piece", "acc", 2), ("mxfp4", "next_piece", "acc", 2),
    ]  # fmt: skip
    assert scores[0].value == 1.0


def test_a_task_that_there_is_not_is_named(model, tmp_path):
    with pytest.raises(ConfigError, match=r"no such file") as caught:
        api.score_tasks({"original": model}, [str(tmp_path / "absent.yaml")])
    assert "absent.yaml" in caught.value.where
    (tmp_path / "none.jsonl").touch()
    empty = tmp_path / "empty.yaml"
    empty.write_text(TASK.format(data=tmp_path / "none.jsonl"))
    with pytest.raises(ConfigError, match="a task has no samples"):
        api.score_tasks({"original": model}, [str(empty)])
    broken = tmp_path / "broken.yaml"
    broken.write_text("task: broken\ndataset_path: json\noutput_type: nonsense\n")
    with pytest.raises(ConfigError, match="the harness says"):
        api.score_tasks({"original": model}, [str(broken)])


@pytest.mark.slow
def test_answers_are_those_of_the_harness_own_class(model):
    theirs = HFLM(
        pretrained=str(model.source.directory), dtype="float32", device="cpu", batch_size=1
    )
    mine = HarnessModel(model)
    pairs = [(code, choice) for code, choices, _ in SAMPLES for choice in choices]
    long = ("x = 1\n" * 400, "y = 2\n")  # more than the model sees at once
    requests = asked("loglikelihood", *pairs, long)
    for found, expected in zip(
        mine.loglikelihood(requests), theirs.loglikelihood(requests), strict=True
    ):
        assert found[0] == pytest.approx(expected[0], abs=2e-3)
        assert found[1] == expected[1]
    texts = asked("loglikelihood_rolling", (TEXT,), (TEXT * 40,))
    for found, expected in zip(
        mine.loglikelihood_rolling(texts), theirs.loglikelihood_rolling(texts), strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-4)
    given = {"until": ["\n\n", ")"], "max_gen_toks": 12}
    questions = asked("generate_until", ("def add(a, b):\n    return", given), ("import", given))
    assert mine.generate_until(questions) == theirs.generate_until(questions)
