"""The page holds the look, needs nothing else, and its sliders move the picture in a browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mono import cli
from lightning_mono.attention import Look, look
from lightning_mono.attention.page import write_page
from lightning_mono.inference import Assistant

from .conftest import QUESTION, noise

Captured = pytest.CaptureFixture[str]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)

PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const seen = [];
  const canvas = document.querySelector("canvas");
  const note = () => seen.push([canvas.toDataURL(), document.getElementById("summary").textContent,
    document.querySelector("figcaption").textContent, location.hash]);
  note();
  for (const [id, value] of [["layer", 1], ["head", 2], ["token", 3]]) {
    const slider = document.getElementById(id);
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
    note();
  }
  const found = document.createElement("pre");
  found.id = "probe";
  found.textContent = JSON.stringify(seen);
  document.body.append(found);
}, 300));
</script>
"""


@pytest.fixture(scope="module")
def seen(assistant: Assistant) -> Look:
    return look(assistant, QUESTION, [noise(64, 48)], max_new_tokens=5)


def _data(page: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_it_holds_every_row_and_needs_nothing_else(seen: Look, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    write_page(seen, path, prompt="</script> & <b>?", model="a model")
    page = path.read_text()
    assert "&lt;/script&gt; &amp; &lt;b&gt;?" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|url\((?!data:)|@import|https?:""", page)
    data = _data(page)
    shape = (len(data["layers"]), data["heads"] + 1, len(data["said"]))
    assert shape == (2, 5, len(seen.said))
    picture = data["pictures"][0]
    bytes_ = np.frombuffer(base64.b64decode(picture["cells"]), np.uint8)
    cells = bytes_.reshape(*shape, picture["rows"], picture["columns"])
    words = np.frombuffer(base64.b64decode(data["words"]), np.uint8).reshape(*shape, -1)
    shares = np.array(picture["share"]).reshape(shape)
    for layer in range(2):
        for head in (None, 0, 3):
            at = 0 if head is None else head + 1
            for token in range(shape[2]):
                row = seen.row(layer, token, head)
                whole = seen.pictures[0].heat(row).whole
                np.testing.assert_allclose(
                    cells[layer, at, token] / 255, whole / whole.max(), atol=0.003
                )
                np.testing.assert_allclose(
                    words[layer, at, token] / 255, row / row.max(), atol=0.003
                )
                assert shares[layer, at, token] == pytest.approx(seen.image_share(row), abs=1e-5)


def _opened(path: Path, fragment: str, profile: Path) -> str:
    """The page as a browser has it after its scripts have run."""
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [
            BROWSER,
            *options,
            f"--user-data-dir={profile}",
            "--dump-dom",
            f"{path.as_uri()}{fragment}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs a browser: install chromium to run this test")
def test_sliders_move_the_picture_in_a_browser(seen: Look, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    write_page(seen, path, prompt=QUESTION, model="a model")
    path.write_text(path.read_text().replace("</body>", f"{PROBE}</body>"))
    dom = _opened(path, "#layer=0&head=mean&token=0", tmp_path / "profile")
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert found, "the page's script did not run to its end"
    states = json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    assert len({image for image, *_ in states}) == 4, "each slider changes the picture"
    places = [(0, None, 0), (1, None, 0), (1, 1, 0), (1, 1, 3)]
    for (_, summary, caption, fragment), (layer, head, token) in zip(states, places, strict=True):
        row = seen.row(layer, token, head)
        name = "mean over heads" if head is None else f"head {head}"
        assert f"Layer {layer}, {name}, as it says" in summary
        assert f"{100 * seen.image_share(row):.1f} %" in summary
        whole = seen.pictures[0].heat(row).whole
        down, across = np.unravel_index(whole.argmax(), whole.shape)
        assert f"row {down + 1}, column {across + 1} of 6 x 8 cells" in caption
        where = "mean" if head is None else head
        assert fragment == f"#layer={layer}&head={where}&token={token}"


def test_maps_from_the_command_line(assistant: Assistant, tmp_path: Path, capsys: Captured) -> None:
    folder, picture, out = tmp_path / "model", tmp_path / "a.png", tmp_path / "maps"
    assistant.save(folder)
    picture.write_bytes(noise(40, 20))
    asked = ["maps", str(folder), "--prompt", QUESTION, "--max-new-tokens", "4"]
    shown = [*asked, "--image", str(picture), "--out", str(out)]
    more = ["--layers", "1", "--token", "2", "--against", str(folder), "--json"]
    assert cli.main([*shown, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == assistant.answer([([picture.read_bytes()], QUESTION)], 4)[0]
    assert sorted(map(str, out.iterdir())) == sorted(found["files"])
    names = {Path(file).name for file in found["files"]}
    assert names == {
        "index.html",
        "measures.png",
        "rollout-token_2.png",
        *(
            f"{view}-layer_01{token}.png"
            for view, token in (
                ("map", ""),
                ("film", ""),
                ("difference", ""),
                ("overlay", "-token_2"),
                ("heads", "-token_2"),
            )
        ),
    }
    seen = look(assistant, QUESTION, [picture.read_bytes()], max_new_tokens=4)
    share = seen.image_share(seen.row(1, 2))
    assert found["image_share"] == {"1": pytest.approx(share, abs=1e-5)}

    wrong = {
        ("--layers", "0,7"): "--layers 0,7: layer 7 does not exist",
        ("--layers", "none"): "names no layer; the model has 0 to 1",
        ("--layers", "a,b"): "--layers a,b: 'a,b' is no placement",
        ("--token", "9"): "--token 9: the answer has",
    }
    for options, says in wrong.items():
        assert cli.main([*shown, *options]) == 2
        assert says in capsys.readouterr().err

    words = tmp_path / "words"
    assert cli.main([*asked, "--out", str(words)]) == 0
    assert "says: " in capsys.readouterr().out
    assert {path.name for path in words.iterdir()} == {
        "index.html",
        "map-layer_00.png",
        "map-layer_01.png",
        "measures.png",
    }
