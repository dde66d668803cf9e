"""lmms-eval itself on a local task of pictures: its answers are our assistant's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms_eval.api.instance import Instance
from lmms_eval.models import get_model
from PIL import Image

from lightning_mono.data.sample import Exchange
from lightning_mono.errors import CheckpointError
from lightning_mono.harness.lmms_eval import LightningMono
from lightning_mono.harness.requests import HarnessError
from lightning_mono.inference import Assistant

pytestmark = pytest.mark.harness

TASK = """
task: colors
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/colors.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function look.at
doc_to_text: !function look.question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 6, temperature: 0, do_sample: false, num_beams: 1}}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
lmms_eval_specific_kwargs: {{default: {{pre_prompt: "", post_prompt: ""}}}}
metadata: [{{version: 1}}]
"""

LOOK = """
from PIL import Image

def at(doc):
    return [Image.open(doc["image"])]

def question(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]
"""


def picture(number: int) -> Image.Image:
    image = Image.new("RGB", (16, 16), "white")
    image.paste(((37 * number) % 256, (91 * number) % 256, 30), (number % 8, 2, number % 8 + 8, 12))
    return image


def request(kind: str, number: int, *arguments: Any) -> Instance:
    look = lambda doc: [doc["image"]]  # noqa: E731
    metadata = {"task": "colors", "doc_id": number, "repeats": 1}
    return Instance(kind, (*arguments, look, number, "colors", "test"), number, metadata)


@pytest.fixture
def model(seeing_model: Path) -> LightningMono:
    model = LightningMono(str(seeing_model), batch_size=2, device="cpu")
    documents = [{"image": picture(number)} for number in range(5)]
    model.task_dict = {"colors": {"test": documents}}
    return model


def test_the_entry_point_makes_the_model_known() -> None:
    assert get_model("lightning_mono") is LightningMono


def test_answers_are_the_assistants_in_any_batch(model: LightningMono) -> None:
    questions = ["what color?", "is it red?", "what color is the circle, red or blue?"]
    short, long = {"max_new_tokens": 3}, {"max_new_tokens": 7, "until": ["\n\n"]}
    asked = [(questions[n % 3], (short, long)[n % 2]) for n in range(5)]
    found = model.generate_until([request("generate_until", n, *asked[n]) for n in range(5)])
    for n, (question, settings) in enumerate(asked):
        (alone,) = model.assistant.answer(
            [([picture(n)], question)],
            settings["max_new_tokens"],
            stop=settings.get("until", ()),
        )
        assert found[n] == alone
    assert len(set(found)) > 1


@torch.no_grad()
def test_likelihoods_are_those_of_the_answer_behind_the_picture(model: LightningMono) -> None:
    answers = ["red", "a blue square", "yes, it is"]
    found = model.loglikelihood(
        [request("loglikelihood", n, "what color?", answer) for n, answer in enumerate(answers)]
    )
    assistant = model.assistant
    for n, answer in enumerate(answers):
        prompt = assistant.renderer.prompt("what color?", [picture(n)])
        whole = assistant.renderer.prompt(
            "", [picture(n)], history=[Exchange("what color?", answer)]
        ).input_ids
        end = len(prompt.input_ids)
        while whole[end] != assistant.renderer.answer_close_id:
            end += 1
        ids = torch.from_numpy(whole[:end])[None]
        logits = assistant.model(ids, torch.from_numpy(prompt.pixel_values)).logits[0]
        logs = logits.double().log_softmax(-1)
        places = range(len(prompt.input_ids), end)
        expected = sum(float(logs[place - 1, whole[place]]) for place in places)
        assert found[n][0] == pytest.approx(expected, abs=1e-5)
    (other,) = model.loglikelihood([request("loglikelihood", 3, "what color?", "red")])
    assert other[0] != found[0][0], "the picture was not looked at"


def test_what_cannot_be_served_is_said(model: LightningMono, tmp_path: Path) -> None:
    model.task_dict = {"colors": {"test": [{"image": "video.mp4"}]}}
    with pytest.raises(HarnessError, match="task colors, document 0: only pictures"):
        model.generate_until([request("generate_until", 0, "what?", {})])
    with pytest.raises(HarnessError, match="several rounds"):
        model.generate_until_multi_round([])
    with pytest.raises(CheckpointError, match="no model folder"):
        LightningMono(str(tmp_path / "nowhere"))


def test_the_command_scores_what_the_assistant_says(seeing_model: Path, tmp_path: Path) -> None:
    assistant = Assistant.from_pretrained(seeing_model, device="cpu")
    (tasks := tmp_path / "tasks").mkdir()
    (tasks / "colors.yaml").write_text(TASK.format(folder=tmp_path))
    (tasks / "look.py").write_text(LOOK)
    lines, right = [], 0
    for number in range(8):
        path = tmp_path / f"{number}.png"
        picture(number).save(path)
        (said,) = assistant.answer([([picture(number)], "what color?")], 6)
        gold = said if number % 3 else "not this"
        right += number % 3 != 0
        record = {"image": str(path), "question": "what color?", "answer": gold}
        lines.append(json.dumps(record) + "\n")
    (tmp_path / "colors.jsonl").write_text("".join(lines))
    words = ["--model", "lightning_mono", "--batch_size", "3", "--tasks", "colors"]
    words += ["--model_args", f"pretrained={seeing_model},device=cpu"]
    words += ["--include_path", str(tasks), "--output_path", str(tmp_path / "results")]
    command = Path(sys.executable).parent / "lmms-eval"
    done = subprocess.run(
        [str(command), *words],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (written,) = (tmp_path / "results").rglob("*results.json")
    found = json.loads(written.read_text())["results"]["colors"]["exact_match,none"]
    assert found == pytest.approx(right / 8)
