"""Scenes composed of Tux Paint stamps (GPL-2+), with questions whose answers are known.

One to four cut-out animals, flowers, pieces of food and vehicles stand in the quarters of a plain
square. A scene is made of the stamps of its own split alone, which share no caption with those of
the other, so the test asks about things never seen. Everything follows from the seed.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from lightning_mono.data.sample import Exchange, Sample, Skipped
from lightning_mono.data.sources.tuxpaint import Stamp, read_stamps
from lightning_mono.errors import DataError

SCENES = {"train": 4000, "test": 1000}
PLACES = ("top left", "top right", "bottom left", "bottom right")
NUMBERS = ("none", "one", "two", "three", "four")
BACKGROUNDS = ("white", "#fdf1d8", "#e3f0fa", "#e9f6e4", "#f6e6f2")


@dataclass(frozen=True)
class Kind:
    """A kind of thing: how it is named, and which stamps show one."""

    name: str
    one: str
    many: str
    folder: str


KINDS = (
    Kind("animal", "an animal", "animals", "animals/"),
    Kind("flower", "a flower", "flowers", "plants/flowers/"),
    Kind("food", "food", "pieces of food", "food/"),
    Kind("vehicle", "a vehicle", "vehicles", "vehicles/"),
)
# In captions: parts of things, and drawings in jest that show one kind as well as another.
_UNCLEAR = ("wheel", "sign", "emblem", "core", "wings", "teddy", "tux", "spider", "lion!", "wining")


@dataclass(frozen=True)
class Thing:
    """What stands in a quarter of the scene."""

    kind: Kind
    place: int
    picture: Image.Image

    @property
    def row(self) -> int:
        return self.place // 2

    @property
    def column(self) -> int:
        return self.place % 2


def composed(
    split: str, scenes: int = 0, seed: int = 0, size: int = 128
) -> Iterator[Sample | Skipped]:
    """Scenes, each with a question of every kind that can be asked about it.

    The kinds: ``counting`` (things, or things of one kind), ``place`` (what is at the top left?),
    ``position`` (where is the animal?), ``which`` (is further left, the animal or the food?),
    ``presence`` (is there an animal?) and, where there is one thing, ``category`` (is it one?).

    Args:
        split: ``train`` or ``test``.
        scenes: how many; 0 for 4,000 to train or 1,000 to test.
        seed: another seed makes other scenes of the same stamps.
        size: side of the picture in pixels.

    Raises:
        DataError: the package cannot be had, for one because there is no apt.
    """
    pictures: dict[Kind, list[Image.Image]] = {kind: [] for kind in KINDS}
    for stamp in read_stamps("tux_scenes"):
        if isinstance(stamp, Skipped):
            yield stamp
            continue
        kind = _kind(stamp)
        if kind is not None and stamp.split == split:
            try:
                pictures[kind].append(_cut_out(stamp, size // 2))
            except (OSError, SyntaxError, ValueError) as error:
                yield Skipped(stamp.name, f"cannot read image: {error}")
    for kind, found in pictures.items():
        if not found:
            raise DataError(f"source tux_scenes: no stamp to {split} with shows {kind.one}")
    for number in range(scenes or SCENES[split]):
        random = Random(f"{seed} {split} {number}")
        things = _things(random, pictures)
        exchanges = tuple(_questions(random, things))
        yield Sample(f"{split}/{number}", (_drawn(random, things, size),), exchanges)


def blind(
    split: str, scenes: int = 0, seed: int = 0, size: int = 128
) -> Iterator[Sample | Skipped]:
    """The questions of :func:`composed` without the pictures: what can be known without looking.

    Raises:
        DataError: the package cannot be had, for one because there is no apt.
    """
    for sample in composed(split, scenes, seed, size):
        yield sample if isinstance(sample, Skipped) else replace(sample, images=())


def _kind(stamp: Stamp) -> Kind | None:
    """Of what kind a stamp shows one, if it clearly does."""
    if any(word in stamp.caption.lower() for word in _UNCLEAR):
        return None
    return next((kind for kind in KINDS if stamp.name.startswith(kind.folder)), None)


def _cut_out(stamp: Stamp, side: int) -> Image.Image:
    """The stamp without the empty margin, as large as fits into a square."""
    with Image.open(stamp.file) as file:
        picture = file.convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox())
    scale = side / max(picture.size)
    width, height = (max(1, round(scale * length)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _things(random: Random, pictures: dict[Kind, list[Image.Image]]) -> list[Thing]:
    places = random.sample(range(len(PLACES)), random.randint(1, len(PLACES)))
    kinds = [random.choice(KINDS) for _ in places]
    return [
        Thing(kind, place, random.choice(pictures[kind]))
        for place, kind in sorted(zip(places, kinds, strict=True), key=lambda pair: pair[0])
    ]


def _drawn(random: Random, things: Sequence[Thing], size: int) -> bytes:
    """The scene as PNG; a thing fills 70 to 95 % of its quarter and lies anywhere in it."""
    scene = Image.new("RGB", (size, size), random.choice(BACKGROUNDS))
    for thing in things:
        scale = random.uniform(0.7, 0.95)
        width, height = (max(1, int(scale * length)) for length in thing.picture.size)
        shown = thing.picture.resize((width, height), Image.Resampling.LANCZOS)
        left = thing.column * size // 2 + random.randint(0, size // 2 - width)
        top = thing.row * size // 2 + random.randint(0, size // 2 - height)
        scene.paste(shown, (left, top), shown)
    file = io.BytesIO()
    scene.save(file, "PNG")
    return file.getvalue()


# -- questions --------------------------------------------------------------------------------


def _questions(random: Random, things: Sequence[Thing]) -> Iterator[Exchange]:
    count = Counter(thing.kind for thing in things)
    there = [kind for kind in KINDS if count[kind]]
    absent = [kind for kind in KINDS if not count[kind]]
    single = [thing for thing in things if count[thing.kind] == 1]
    yield Exchange("How many things are there?", NUMBERS[len(things)], "counting")
    kind = random.choice(absent if absent and random.random() < 0.2 else there)
    yield Exchange(f"How many {kind.many} are there?", NUMBERS[count[kind]], "counting")
    yield _place(random, things)
    kind = random.choice(absent if absent and random.random() < 0.5 else there)
    yield Exchange(f"Is there {kind.one}?", "yes" if count[kind] else "no", "presence")
    if single:
        thing = random.choice(single)
        yield Exchange(f"Where is the {thing.kind.name}?", PLACES[thing.place], "position")
    if len(single) > 1:
        yield from _which(random, *random.sample(single, 2))
    if len(things) == 1:
        kind = things[0].kind if random.random() < 0.5 else random.choice(absent)
        answer = "yes" if kind == things[0].kind else "no"
        yield Exchange(f"Is it {kind.one}?", answer, "category")


def _place(random: Random, things: Sequence[Thing]) -> Exchange:
    """What is in a quarter; one in five times it is an empty one, where there is."""
    filled = {thing.place: thing.kind.one for thing in things}
    empty = [place for place in range(len(PLACES)) if place not in filled]
    place = random.choice(empty if empty and random.random() < 0.2 else list(filled))
    return Exchange(f"What is at the {PLACES[place]}?", filled.get(place, "nothing"), "place")


def _which(random: Random, one: Thing, other: Thing) -> Iterator[Exchange]:
    """Two things are further left or higher, unless they share the column or the row."""
    ways = []
    if one.column != other.column:
        ways.append(("further left", one if one.column < other.column else other))
    if one.row != other.row:
        ways.append(("higher", one if one.row < other.row else other))
    way, answer = random.choice(ways)
    question = f"Which is {way}, the {one.kind.name} or the {other.kind.name}?"
    yield Exchange(question, f"the {answer.kind.name}", "which")
