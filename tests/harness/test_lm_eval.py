"""lm-evaluation-harness itself on local tasks: its numbers are ours, and those of transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lightning_mono.data.sample import Exchange
from lightning_mono.harness.lm_eval import LightningMono
from lightning_mono.harness.requests import HarnessError
from lightning_mono.inference import Assistant
from lightning_mono.retention.quiz import TOPICS, quiz, quiz_items

pytestmark = pytest.mark.harness

PAIRS = [
    ("is the red circle", " left of the blue square?"),
    ("a", " red"),
    ("a red circle, a blue square, ", "is it red? yes"),
    ("trailing blanks  ", "yes"),
    ("", "a blue square"),
    ("is it red? " * 30, "yes, it is"),
    ("a blue", " square"),
]

TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/quiz.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: choices
doc_to_target: right
target_delimiter: " "
process_results: !function scoring.by_token
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1}}
"""

SCORING = """
def by_token(doc, results):
    scores = [likelihood / n for (likelihood, _), n in zip(results, doc["tokens"])]
    return {"acc": float(scores.index(max(scores)) == doc["right"])}
"""


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, args, number) for number, args in enumerate(arguments)]


@pytest.fixture
def models(text_model: Path) -> tuple[LightningMono, HFLM]:
    theirs = HFLM(
        pretrained=str(text_model), device="cpu", dtype="float32", batch_size=3, max_length=100
    )
    return LightningMono(str(text_model), batch_size=3, device="cpu", max_length=100), theirs


def test_likelihoods_are_those_of_the_harness_own_adapter(
    models: tuple[LightningMono, HFLM],
) -> None:
    ours, theirs = (model.loglikelihood(asked("loglikelihood", *PAIRS)) for model in models)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert [x for x, _ in ours] == pytest.approx([x for x, _ in theirs], abs=1e-4, rel=1e-5)
    alone = [models[0].loglikelihood(asked("loglikelihood", pair))[0][0] for pair in PAIRS]
    assert [x for x, _ in ours] == pytest.approx(alone, abs=1e-4)


def test_rolling_likelihoods_are_those_of_the_harness_own_adapter(
    models: tuple[LightningMono, HFLM],
) -> None:
    texts = [("a red circle",), ("is it red? yes " * 40,), ("a blue square, " * 7,)]
    requests = asked("loglikelihood_rolling", *texts)
    ours, theirs = (model.loglikelihood_rolling(requests) for model in models)
    assert ours == pytest.approx(theirs, abs=1e-3, rel=1e-5)
    assert len(models[0].tok_encode(texts[1][0])) > 100, "one text takes several windows"


def test_continuations_are_those_of_the_harness_own_adapter(
    models: tuple[LightningMono, HFLM],
) -> None:
    settings = {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False}
    stops = models[0].assistant.renderer.stop_ids
    models[1].model.generation_config.eos_token_id = list(stops)
    requests = asked("generate_until", *((context or "a", settings) for context, _ in PAIRS))
    ours, theirs = (model.generate_until(requests) for model in models)
    assert ours == theirs
    stop = ours[0][2:4]
    short = models[0].generate_until(
        asked("generate_until", (PAIRS[0][0], {**settings, "until": stop}))
    )
    assert short == [ours[0].split(stop)[0]]


@torch.no_grad()
def test_a_continuation_that_greedy_decoding_says_is_known_as_such(text_model: Path) -> None:
    model = LightningMono(str(text_model), device="cpu")
    ids = torch.tensor([model.tok_encode("a red")])
    said = model.assistant.model.generate(ids, max_new_tokens=3)[0].tolist()
    ((total, greedy),) = model._loglikelihood_tokens([(None, ids[0].tolist(), said)])
    logs = (
        model.assistant.model(torch.cat([ids, torch.tensor([said])], 1)).logits[0].log_softmax(-1)
    )
    direct = sum(float(logs[ids.shape[1] - 1 + i, token]) for i, token in enumerate(said))
    assert greedy is True
    assert total == pytest.approx(direct, abs=1e-5)
    other = [*said[:2], (said[2] + 1) % 200]
    assert model._loglikelihood_tokens([(None, ids[0].tolist(), other)])[0][1] is False


def test_the_chat_template_is_the_model_s_own(text_model: Path) -> None:
    model = LightningMono(str(text_model), device="cpu")
    history = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "is it red?"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "a circle?"},
    ]
    text = model.apply_chat_template(history)
    prompt = model.assistant.renderer.prompt(
        "a circle?", history=[Exchange("is it red?", "yes")], system="be short"
    )
    assert model.tok_encode(text) == prompt.input_ids.tolist()
    with pytest.raises(HarnessError, match="ends with a question"):
        model.apply_chat_template(history[:3])


def test_what_cannot_be_served_is_said(text_model: Path) -> None:
    model = LightningMono(str(text_model), device="cpu")
    for settings, says in (
        ({"num_beams": 4}, "num_beams"),
        ({"max_gen_toks": 128}, "leave no room"),
        ({"penalty_alpha": 1}, "penalty_alpha not supported"),
    ):
        with pytest.raises(HarnessError, match=says):
            model.generate_until(asked("generate_until", ("a", settings)))
    with pytest.raises(HarnessError, match="a continuation has"):
        model.loglikelihood(asked("loglikelihood", ("a", " red circle" * 90)))
    with pytest.raises(HarnessError, match="batch_size: 'auto' must be"):
        LightningMono(str(text_model), batch_size="auto")


def test_the_command_counts_the_quiz_as_we_do(text_model: Path, tmp_path: Path) -> None:
    words = ["ant", "bee", "cow", "dog", "elk", "fox", "gnu", "hen"]
    (games := tmp_path / "games").mkdir()
    for topic in TOPICS:
        (games / topic).write_text("\n".join(f"{word}:{word.upper()} {word}" for word in words))
    items = quiz_items(games, per_topic=8)
    assistant = Assistant.from_pretrained(text_model, device="cpu")
    tokenizer = assistant.renderer.tokenizer
    expected = quiz(assistant.model, tokenizer, items)
    assert 0 < expected.correct < expected.total
    (tasks := tmp_path / "tasks").mkdir()
    (tasks / "capitals.yaml").write_text(TASK.format(folder=tmp_path))
    (tasks / "scoring.py").write_text(SCORING)
    lines = []
    for item in items:
        tokens = [len(tokenizer.encode(f" {c}", add_special_tokens=False)) for c in item.choices]
        record = {"prompt": item.prompt, "choices": item.choices, "right": item.right}
        lines.append(json.dumps({**record, "tokens": tokens}) + "\n")
    (tmp_path / "quiz.jsonl").write_text("".join(lines))

    def command(pretrained: Path) -> subprocess.CompletedProcess[str]:
        words = ["--model", "lightning_mono", "--model_args", f"pretrained={pretrained}"]
        words += ["--tasks", "capitals", "--include_path", str(tasks), "--batch_size", "16"]
        words += ["--output_path", str(tmp_path / "results")]
        module = "lightning_mono.harness.lm_eval"
        return subprocess.run(
            [sys.executable, "-m", module, *words],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=tmp_path,
        )

    done = command(text_model)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = (tmp_path / "results").rglob("results_*.json")
    found = json.loads(written.read_text())["results"]["capitals"]["acc,none"]
    assert round(found * expected.total, 6) == expected.correct

    refused = command(tmp_path / "nowhere")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/nowhere is no model")
