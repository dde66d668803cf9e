"""An assistant saved is the same assistant: tokens, tiling, template and answers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_mono import cli
from lightning_mono.backbones import save_backbone
from lightning_mono.convert import convert
from lightning_mono.data.images import ImageProcessor
from lightning_mono.errors import CheckpointError
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import randomize, tiny_backbone

Captured = pytest.CaptureFixture[str]
QUESTION = "is it red?"


def _picture() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (16, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    return file.getvalue()


PICTURE = _picture()


@pytest.fixture
def assistant() -> Assistant:
    """A tiny one that cuts pictures into up to three tiles."""
    backbone = tiny_backbone()
    model = MonoModel.graft(
        backbone, patchifier=PatchifierConfig(16, 4, 6), experts=ExpertsConfig(ffn=(0, 1))
    )
    randomize(model, seed=1)
    images = ImageProcessor(16, max_tiles=3, thumbnail=True)
    return Assistant(model, make_renderer(model, backbone.tokenizer, "chatml", images), "chatml")


def _answers(assistant: Assistant) -> list[str]:
    return assistant.answer([([PICTURE], QUESTION), ([], "what?")], 8)


def test_a_saved_assistant_answers_the_same(assistant: Assistant, tmp_path: Path) -> None:
    assistant.save(tmp_path)
    again = Assistant.from_pretrained(tmp_path)
    assert again.chat == "chatml"
    assert again.renderer.images == assistant.renderer.images
    assert again.renderer.fingerprint == assistant.renderer.fingerprint
    assert _answers(again) == _answers(assistant)
    assert "is it" not in _answers(again)[0]


def test_the_system_message_reaches_the_prompt(assistant: Assistant, tmp_path: Path) -> None:
    assistant.save(tmp_path)
    told = Assistant.from_pretrained(tmp_path, system="be a blue square")
    decode = told.renderer.tokenizer.decode
    ids = told.renderer.prompt(QUESTION).input_ids.tolist()
    assert "be a blue square" in decode(ids, skip_special_tokens=False)
    plain = assistant.renderer.prompt(QUESTION).input_ids.tolist()
    assert ids[-len(plain) :] == plain
    assert len(ids) > len(plain)


def test_a_text_llm_can_be_asked_too(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    backbone.chat = "chatml"
    save_backbone(tmp_path, backbone)
    assistant = Assistant.from_pretrained(tmp_path)
    assert assistant.chat == "chatml"
    assert assistant.model.config.patchifier is None
    assert isinstance(assistant.answer([([], "what?")], 4)[0], str)


def _entries(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def breaks(folder: Path) -> None:
        entries = json.loads((folder / "config.json").read_text())
        change(entries)
        (folder / "config.json").write_text(json.dumps(entries))

    return breaks


def _without_image_tokens(folder: Path) -> None:
    tiny_backbone().tokenizer.save(str(folder / "tokenizer.json"))


BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "template": (_entries(lambda e: e.update(template="vicuna")), "no chat template 'vicuna'"),
    "padding": (_entries(lambda e: e.update(pad2square=True)), "pad2square is not supported"),
    "tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "image tokens": (_without_image_tokens, "lacks one of the image tokens <img>"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_folder_that_cannot_be_asked_says_why(
    name: str, assistant: Assistant, tmp_path: Path
) -> None:
    assistant.save(tmp_path)
    breaks, says = BREAKS[name]
    breaks(tmp_path)
    with pytest.raises(CheckpointError, match=says) as caught:
        Assistant.from_pretrained(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


# -- convert -------------------------------------------------------------------------------------


def test_converting_changes_dtype_and_shards_and_nothing_else(
    assistant: Assistant, tmp_path: Path
) -> None:
    assistant.save(tmp_path / "a")
    (tmp_path / "a" / "modeling_other.py").write_text("raise SystemExit('this must never run')")
    written = convert(tmp_path / "a", tmp_path / "b", dtype=torch.bfloat16, shard_bytes=4_000)
    assert len(list((tmp_path / "b").glob("model-*.safetensors"))) > 1
    assert "modeling_other.py" in written["files"]
    assert written["parameters"] == sum(p.numel() for p in assistant.model.parameters())
    back = Assistant.from_pretrained(tmp_path / "b", dtype=torch.float32)
    for name, value in back.model.state_dict().items():
        assert torch.equal(value, assistant.model.state_dict()[name].bfloat16().float())
    assert back.renderer.fingerprint == assistant.renderer.fingerprint
    convert(tmp_path / "b", tmp_path / "c")
    assert _answers(Assistant.from_pretrained(tmp_path / "c", dtype=torch.float32)) == _answers(
        back
    )


def test_a_converted_image_size_gives_more_tokens(assistant: Assistant, tmp_path: Path) -> None:
    assistant.save(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", image_size=32)
    wide = Assistant.from_pretrained(tmp_path / "b")
    assert wide.renderer.tokens_per_tile == 4 * assistant.renderer.tokens_per_tile
    assert isinstance(_answers(wide)[0], str)


def test_a_target_in_use_is_left_alone(assistant: Assistant, tmp_path: Path) -> None:
    assistant.save(tmp_path / "a")
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(CheckpointError, match="is in use: name a new folder"):
        convert(tmp_path / "a", tmp_path / "a")
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


# -- the command line ----------------------------------------------------------------------------


def test_generate_chat_and_convert_from_the_command_line(
    assistant: Assistant, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, picture = str(tmp_path / "model"), tmp_path / "a.png"
    assistant.save(Path(folder))
    picture.write_bytes(PICTURE)
    asked = ["--image", str(picture), "--max-new-tokens", "6"]
    assert cli.main(["generate", folder, "--prompt", QUESTION, *asked, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["answer"]
    assert said == "".join(assistant.stream(QUESTION, [PICTURE], max_new_tokens=6))
    stop = ["--stop", said[1:3], "--repetition-penalty", "1.0", "--system", ""]
    assert cli.main(["generate", folder, "--prompt", QUESTION, *asked, *stop]) == 0
    assert capsys.readouterr().out.strip() == said[: said.index(said[1:3])].strip()

    lines = f"{QUESTION}\n/image {picture}\n/image /no.png\nand this? <image>\n<image>\n/clear\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines + QUESTION + "\n"))
    assert cli.main(["chat", folder, "--max-new-tokens", "6"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("error: ") == 2, "one for the file, one for the missing picture"
    talk = assistant.conversation()
    expected = "".join(talk.ask(QUESTION, max_new_tokens=6)) + "\n"
    expected += "".join(talk.ask("and this? <image>", [PICTURE], max_new_tokens=6)) + "\n"
    expected += "".join(assistant.stream(QUESTION, max_new_tokens=6)) + "\n"
    assert captured.out == expected

    target = str(tmp_path / "new")
    assert cli.main(["convert", folder, target, "--dtype", "bfloat16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == target
    assert cli.main(["convert", folder, target]) == 2
    assert "is in use" in capsys.readouterr().err
