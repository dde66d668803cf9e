"""Notebooks run from a clean kernel; what is committed of them is whole, and has words for all."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST = 1_500_000
"""Bytes of a committed notebook."""

FIGURES = {"attention_maps": 8, "expert_placement": 5, "stages": 6}


class Images(HTMLParser):
    """The attributes of every image in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.found.append(dict(attributes))


def outputs(notebook: Any) -> list[Any]:
    """Those of all cells, and those that a widget has captured."""
    of_cells = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    widgets = notebook.metadata.get("widgets", {}).values()
    states = [one["state"] for kept in widgets for one in kept["state"].values()]
    return of_cells + [out for state in states for out in state.get("outputs", [])]


def images(notebook: Any) -> list[dict[str, str | None]]:
    """Of all outputs; none may hold a picture in a way that has no place for words."""
    found = []
    for out in outputs(notebook):
        data = out.get("data", {})
        assert not [kind for kind in data if kind.startswith("image/")], "show() has the words"
        found += Images("".join(data.get("text/html", ""))).found
    return found


def check_figures(notebook: Any, name: str) -> None:
    """Every picture is one, is not blank, and has words that say what it shows."""
    in_cells = nbformat.v4.new_notebook(cells=notebook.cells)
    assert len(images(in_cells)) == FIGURES[name]
    for image in images(notebook):
        assert len(image["alt"] or "") > 30
        kind, _, encoded = (image["src"] or "").partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            assert min(picture.size) > 150
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 10


def errors(notebook: Any) -> list[str]:
    return [out.evalue for out in outputs(notebook) if out["output_type"] == "error"]


def test_all_are_known() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(FIGURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_with_outputs_of_one_clean_run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        compile(cell.source, path.name, "exec")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not errors(notebook)
    check_figures(notebook, path.stem)
    assert path.stat().st_size < MOST


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_leads_nowhere_that_is_not_there(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    assert not [link for link in links if not (FOLDER / link).exists()]


BY_HAND = """
for layer in (0, config.decoder.layers - 1):
    for start in (said[0], read[0], read[-1]):
        draw(layer, 0, start[1])
controls["layer"].value = 0
controls["start"].value = read[3][1]
"""
"""What a reader does with the controls of attention_maps; six figures, and one in the widget."""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where no run lies yet; notebooks share what they train, as they do for a reader."""
    folder = tmp_path_factory.mktemp("checkout") / "notebooks"
    folder.mkdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_a_clean_kernel_where_nothing_was_trained(
    path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.get("outputs", []).clear()
    notebook.metadata.pop("widgets", None)
    if path.stem == "attention_maps":
        notebook.cells.append(nbformat.v4.new_code_cell(BY_HAND))
    where = {"metadata": {"path": str(elsewhere)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
    assert not errors(notebook)
    if path.stem == "attention_maps":
        played = notebook.cells.pop()
        assert len(images(nbformat.v4.new_notebook(cells=[played]))) == 6
        shown = images(nbformat.v4.new_notebook(metadata=notebook.metadata))
        assert [(image["alt"] or "")[:26] for image in shown] == ["Where prompt token 3 looks"]
    check_figures(notebook, path.stem)
