"""Many turns behind one cache say what each row would say alone, recomputed from the start."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono import kernels
from lightning_mono.backbones.config import RopeScaling
from lightning_mono.model import Batch, MonoModel
from lightning_mono.model.cache import KVCache
from lightning_mono.model.session import Session
from lightning_mono.testing import IMAGE, kernels_here, tiny_config, tiny_decoder, tiny_model

TILE = [IMAGE] * 4


def _model() -> MonoModel:
    """A model that never says the image placeholder: the oracle would ask for its pixels."""
    model = tiny_model(dtype=torch.float64)
    assert model.head is not None
    model.head.weight.data[IMAGE] = 0
    return model


MODEL = _model()


# -- the oracle: every row alone, without a cache -------------------------------------------


class Alone:
    """One row's whole history."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.tiles: list[torch.Tensor] = []

    def read(self, chunk: list[int], tiles: torch.Tensor) -> None:
        self.ids += chunk
        self.tiles += list(tiles)

    def logits(self) -> torch.Tensor:
        pixels = torch.stack(self.tiles) if self.tiles else None
        with torch.no_grad():
            return MODEL(torch.tensor([self.ids]), pixels).logits[0, -1].float()

    def say(self, penalty: float) -> int:
        logits = self.logits()
        for id in set(self.ids) - {IMAGE}:
            logits[id] = logits[id] * penalty if logits[id] < 0 else logits[id] / penalty
        self.ids.append(int(logits.argmax()))
        return self.ids[-1]

    def rewind(self, tokens: int) -> None:
        self.ids = self.ids[: len(self.ids) - tokens]
        self.tiles = self.tiles[: self.ids.count(IMAGE) // 4]

    def says(self, new: int, stops: set[int], penalty: float) -> list[int]:
        said: list[int] = []
        while len(said) < new:
            said.append(said[-1] if said and said[-1] in stops else self.say(penalty))
        return said


# -- conversations --------------------------------------------------------------------------


@dataclass
class Turn:
    """What happens next in a conversation.

    Attributes:
        chunks: a row each.
        left: whether padding stands in front.
        new: ids asked for.
        take: ids after which the consumer walks away.
        forget: which of the possible rewinds comes first; 0 is none.
    """

    chunks: list[list[int]]
    left: bool = True
    new: int = 4
    take: int = 4
    stops: frozenset[int] = frozenset()
    penalty: float = 1.0
    forget: int = 0


words = st.integers(4, 63)
chunk = st.builds(
    lambda before, tiles, after: before + TILE * tiles + after,
    st.lists(words, max_size=4),
    st.sampled_from([0, 0, 1, 2]),
    st.lists(words, max_size=3),
).filter(bool)


@st.composite
def conversations(draw: st.DrawFn) -> list[Turn]:
    rows = draw(st.integers(1, 3))
    turn = st.builds(
        Turn,
        chunks=st.lists(chunk, min_size=rows, max_size=rows),
        left=st.booleans(),
        new=st.integers(0, 6),
        take=st.integers(1, 8),
        stops=st.frozensets(words, max_size=30),
        penalty=st.sampled_from([1.0, 1.0, 1.6]),
        forget=st.sampled_from([0, 0, 0, 1, 2, 5]),
    )
    return draw(st.lists(turn, min_size=1, max_size=4))


def _inputs(turn: Turn) -> dict[str, torch.Tensor | None]:
    """Arguments of a chunk; even chunks come without a mask."""
    width = max(map(len, turn.chunks))
    ids, mask = torch.zeros(2, len(turn.chunks), width, dtype=torch.int64)
    for row, ids_of_row in enumerate(turn.chunks):
        start = width - len(ids_of_row) if turn.left else 0
        place = slice(start, start + len(ids_of_row))
        ids[row, place], mask[row, place] = torch.tensor(ids_of_row), 1
    tiles = torch.tensor([row.count(IMAGE) // 4 for row in turn.chunks])
    generator = torch.Generator().manual_seed(sum(map(sum, turn.chunks)))
    pixels = torch.randn(int(tiles.sum()), 3, 16, 16, generator=generator)
    return {
        "input_ids": ids,
        "pixel_values": pixels if len(pixels) else None,
        "attention_mask": None if bool(mask.all()) else mask,
        "tiles_per_sample": tiles,
    }


def _rewound(session: Session, rows: list[Alone], forget: int) -> None:
    """Forgets by one of the numbers of tokens that cut no image of any row in two."""
    possible = [
        n
        for n in range(min(len(row.ids) for row in rows) + 1)
        if all(row.ids[: len(row.ids) - n].count(IMAGE) % 4 == 0 for row in rows)
    ]
    tokens = possible[forget % len(possible)]
    session.rewind(tokens)
    for row in rows:
        row.rewind(tokens)


def _check(turns: list[Turn], piece: int = Session.piece) -> None:
    rows = [Alone() for _ in turns[0].chunks]
    session = MODEL.session(len(rows))
    session.piece = piece
    for turn in [*turns, Turn([[4]] * len(rows), new=0)]:  # logits tell more than ids
        _rewound(session, rows, turn.forget)
        inputs = _inputs(turn)
        tiles = torch.zeros(0) if inputs["pixel_values"] is None else inputs["pixel_values"]
        at = 0
        for row, ids in zip(rows, turn.chunks, strict=True):
            count = ids.count(IMAGE) // 4
            row.read(ids, tiles[at : at + count])
            at += count
        if turn.new == 0:
            alone = torch.stack([row.logits() for row in rows])
            torch.testing.assert_close(session.read(**inputs), alone, atol=1e-5, rtol=1e-5)
            continue
        steps = session.stream(
            **inputs,
            max_new_tokens=turn.new,
            stop_ids=turn.stops,
            repetition_penalty=turn.penalty,
        )
        ours = torch.stack(list(islice(steps, turn.take)), dim=1)
        del steps
        alone_ids = [row.says(ours.shape[1], set(turn.stops), turn.penalty) for row in rows]
        assert ours.tolist() == alone_ids
        stopped = all(set(said) & turn.stops for said in alone_ids)
        assert stopped or ours.shape[1] == min(turn.new, turn.take)


@pytest.mark.parametrize("kernel", kernels_here(torch.float64))
@settings(max_examples=40)
@given(turns=conversations(), piece=st.sampled_from([1, 2, 5, Session.piece]))
def test_any_conversation_says_what_each_row_would_say_alone(
    kernel: str, turns: list[Turn], piece: int
) -> None:
    with kernels.active(MODEL, kernel):
        _check(turns, piece)


def test_a_long_chunk_is_computed_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    hidden = MonoModel.hidden

    def spy(self: MonoModel, batch: Batch, **kwargs: Any) -> torch.Tensor:
        sizes.append(batch.input_ids.shape[1])
        return hidden(self, batch, **kwargs)

    monkeypatch.setattr(MonoModel, "hidden", spy)
    session = MODEL.session()
    session.piece = 4
    session.read(torch.tensor([[5, *TILE, 6, 7, 8, 9, 10]]), torch.ones(1, 3, 16, 16))
    assert sizes == [4, 4, 2]


@pytest.mark.parametrize("piece", [3, 4096])
def test_pieces_are_stretched_as_the_whole_chunk(piece: int) -> None:
    config = tiny_config(rope_scaling=RopeScaling("dynamic", 2.0), max_positions=8)
    model = tiny_model(config, dtype=torch.float64)
    ids = torch.arange(5, 25)[None]
    session = model.session()
    session.piece = piece
    with torch.no_grad():
        whole = model(ids).logits[:, -1].float()
    torch.testing.assert_close(session.read(ids), whole, atol=1e-6, rtol=0)


def test_a_failure_in_a_later_piece_leaves_the_session_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session, other = MODEL.session(), MODEL.session()
    first, second = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9, 10, 11, 12, 13]])
    for each in (session, other):
        each.generate(first, max_new_tokens=2)
    session.piece = 2
    hidden = MonoModel.hidden

    def failing(self: MonoModel, batch: Batch, **kwargs: Any) -> torch.Tensor:
        if session.length > 6:
            raise MemoryError
        return hidden(self, batch, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(MonoModel, "hidden", failing)
        with pytest.raises(MemoryError):
            session.read(second)
    assert session.length == other.length
    torch.testing.assert_close(session.read(second), other.read(second), atol=1e-9, rtol=0)


@pytest.mark.parametrize("left", [True, False])
def test_the_second_image_may_come_in_turn_three(left: bool) -> None:
    turns = [
        Turn([[5, *TILE, 6], [7, *TILE, *TILE]], left),
        Turn([[8, 9, 10], [11]], left),
        Turn([[12, *TILE, 13], [14, 15]], left),
        Turn([[16], [17, *TILE, 18]], left),
    ]
    _check(turns)


@pytest.mark.parametrize("take", [1, 2, 3])
def test_a_row_that_stopped_early_goes_on_as_if_alone(take: int) -> None:
    free = MODEL.generate(torch.tensor([[5, 6, 7], [8, 9, 10]]), max_new_tokens=3)
    stop = int(free[0, 0])
    assert stop not in free[1].tolist()
    first = Turn([[5, 6, 7], [8, 9, 10]], take=take, stops=frozenset({stop}))
    _check([first, Turn([[11, 12], [13, 14]]), Turn([[14], [15, *TILE]])])


# -- pieces ---------------------------------------------------------------------------------


@settings(max_examples=30)
@given(ids=st.lists(words, min_size=2, max_size=12), cuts=st.sets(st.integers(1, 11)))
def test_a_chunk_may_come_in_any_pieces(ids: list[int], cuts: set[int]) -> None:
    text = torch.tensor([ids])
    session = MODEL.session()
    bounds = [0, *sorted(cut for cut in cuts if cut < len(ids)), len(ids)]
    for start, end in pairwise(bounds):
        pieces = session.read(text[:, start:end])
    assert session.length == len(ids)
    torch.testing.assert_close(pieces, MODEL.session().read(text), atol=1e-6, rtol=1e-6)


def test_an_answer_cut_short_goes_on_from_an_empty_chunk() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    session = MODEL.session(2)
    first = session.generate(ids, max_new_tokens=3)
    rest = session.generate(ids[:, :0], max_new_tokens=4)
    assert torch.equal(torch.cat([first, rest], dim=1), MODEL.generate(ids, max_new_tokens=7))


def test_no_new_tokens_reads_the_chunk() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    session = MODEL.session(2)
    assert session.generate(ids, max_new_tokens=0).shape == (2, 0)
    assert session.length == 3
    after = session.read(ids[:, :1])
    torch.testing.assert_close(after, MODEL.session(2).read(torch.cat([ids, ids[:, :1]], 1)))


def test_nothing_is_read_before_the_first_step() -> None:
    session = MODEL.session()
    steps = session.stream(torch.tensor([[5, 6]]))
    assert session.length == 0
    next(steps)
    assert session.length == 2
    with pytest.raises(ValueError, match="temperature"):
        session.stream(torch.tensor([[5]]), temperature=-1.0)


@pytest.mark.parametrize("further", [0, 2])
def test_an_emitted_placeholder_is_read_as_text(further: int) -> None:
    """Behind a chunk, where it is pending, and alone, where the stream goes on."""
    session, said = MODEL.session(), [5, 6]
    steps = session.stream(torch.tensor([said]), max_new_tokens=500, temperature=1e4, seed=0)
    while IMAGE not in said:
        said.append(int(next(steps)))
    said += [int(next(steps)) for _ in range(further)]
    shape = (1, len(said) + 1)
    batch = Batch.build(
        input_ids=torch.tensor([[*said, 9]]),
        positions=torch.arange(shape[1])[None],
        documents=torch.ones(shape, dtype=torch.int32),
        branches=torch.zeros(shape, dtype=torch.int32),
        supervised=torch.zeros(shape, dtype=torch.bool),
        pixel_values=torch.zeros(0, 3, 16, 16),
        image_context_id=None,
    )
    with torch.no_grad():
        alone = MODEL.logits(MODEL.hidden(batch))[:, -1].float()
    torch.testing.assert_close(session.read(torch.tensor([[9]])), alone)
    assert session.cache.seen(64)[0, IMAGE], "it was said, so a penalty counts it"


def test_a_penalty_counts_text_but_no_placeholder_padding_or_hidden_id() -> None:
    session = MODEL.session(2)
    mask = torch.tensor([[1] * 6, [0] * 4 + [1] * 2])
    ids = torch.tensor([[5, *TILE, 6], [0, 0, 0, 0, 8, 9]])
    new = session.generate(ids, torch.zeros(1, 3, 16, 16), mask, max_new_tokens=3).tolist()
    session.read(torch.tensor([[7], [7]]))
    expected = [{5, 6, *new[0], 7}, {8, 9, *new[1], 7}]
    assert [set(row.nonzero()[:, 0].tolist()) for row in session.cache.seen(64)] == expected
    session.rewind(2)
    expected = [{5, 6, *new[0][:2]}, {8, 9, *new[1][:2]}]
    assert [set(row.nonzero()[:, 0].tolist()) for row in session.cache.seen(64)] == expected


# -- rewinding ------------------------------------------------------------------------------


@settings(max_examples=30)
@given(turns=conversations(), new=st.integers(0, 4))
def test_what_was_rewound_might_never_have_been_read(turns: list[Turn], new: int) -> None:
    turn = turns[0]
    kept, detour = (MODEL.session(len(turn.chunks)) for _ in range(2))
    for session in (kept, detour):
        session.generate(**_inputs(turn), max_new_tokens=2)
    width = min(map(len, turn.chunks))
    again = torch.randint(4, 64, (len(turn.chunks), width), generator=torch.Generator())
    detour.generate(again, max_new_tokens=new)
    detour.rewind(width + new)
    ids = torch.tensor([[20, 21]] * len(turn.chunks))
    # The pending id went into the cache meanwhile: what is read, not how, must be the same.
    torch.testing.assert_close(detour.read(ids), kept.read(ids), atol=1e-5, rtol=1e-5)
    assert torch.equal(detour.cache.seen(64), kept.cache.seen(64))
    assert detour.length == kept.length


def test_rewinding_hides_a_pending_id_first() -> None:
    session = MODEL.session()
    new = session.generate(torch.tensor([[5, 6]]), max_new_tokens=3)
    assert session.length == 4
    session.rewind(1)
    assert session.length == 4
    session.rewind(2)
    assert session.length == 2
    assert torch.equal(session.generate(new[:, :2], max_new_tokens=1), new[:, 2:])


def test_rewinding_to_the_start_and_too_far() -> None:
    session = MODEL.session(2)
    fresh = session.read(torch.tensor([[5, 6], [7, 8]]))
    session.rewind(0)
    assert session.length == 2
    for tokens in (3, -1):
        with pytest.raises(ValueError, match=rf"forget {tokens} tokens .*\[2, 2\]"):
            session.rewind(tokens)
    session.rewind(2)
    assert session.length == 0
    assert torch.equal(session.read(torch.tensor([[5, 6], [7, 8]])), fresh)


# -- faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunk", "said"),
    [
        ({"input_ids": torch.tensor([TILE, TILE])}, "image tokens"),
        ({"input_ids": torch.tensor([[5]])}, "2 rows, input_ids 1"),
        (
            {
                "input_ids": torch.tensor([TILE, [5, 6, 7, 8]]),
                "pixel_values": torch.zeros(1, 3, 16, 16),
                "tiles_per_sample": torch.tensor([0, 1]),
            },
            "image tokens per sample",
        ),
    ],
)
def test_a_refused_chunk_leaves_the_session_as_it_was(
    chunk: dict[str, torch.Tensor], said: str
) -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    session, other = MODEL.session(2), MODEL.session(2)
    for each in (session, other):
        each.generate(ids, max_new_tokens=2)
    with pytest.raises(ValueError, match=said):
        session.read(**chunk)
    with pytest.raises(ValueError, match=said):
        session.generate(**chunk)
    assert session.length == other.length
    assert torch.equal(session.generate(ids), other.generate(ids))


def test_a_row_needs_something_to_read() -> None:
    ids, mask = torch.tensor([[5, 6], [7, 8]]), torch.tensor([[1, 1], [0, 0]])
    session = MODEL.session(2)
    for empty in ({"input_ids": ids, "attention_mask": mask}, {"input_ids": ids[:, :0]}):
        with pytest.raises(ValueError, match="nothing to read"):
            session.read(**empty)
    session.generate(ids, max_new_tokens=1)
    session.read(ids, attention_mask=mask)  # row 1 has its pending id
    assert session.length == 2 + 3


def test_a_stream_that_was_overtaken_ends_in_an_error() -> None:
    session = MODEL.session()
    steps = session.stream(torch.tensor([[5, 6]]), max_new_tokens=4)
    next(steps)
    session.rewind(1)
    with pytest.raises(ValueError, match="stream anew"):
        next(steps)


# -- cost -----------------------------------------------------------------------------------


def test_plain_rows_take_no_mask_for_a_first_chunk_and_for_single_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks: list[bool] = []
    hidden = MonoModel.hidden

    def spy(self: MonoModel, *args: object, **kwargs: object) -> torch.Tensor:
        masks.append(kwargs["mask"] is not None)
        return hidden(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(MonoModel, "hidden", spy)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    session = MODEL.session(2)
    session.generate(ids, max_new_tokens=3)
    session.generate(ids, max_new_tokens=2)
    assert masks == [False, False, False, True, False]
    ragged = torch.tensor([[0, 1], [1, 1]])
    for mask in (None, ragged, ragged.flip(0), None):
        session.read(ids[:, :1] if mask is None else ids[:, :2], attention_mask=mask)
    assert masks[5:] == [True, True, True, True]
    session.rewind(4)
    session.read(ids[:, :1])
    assert masks[9:] == [False], "with its tokens the padding is gone"


def test_the_head_sees_one_row_of_each_sequence_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    head = MonoModel.logits

    def spy(self: MonoModel, hidden: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(hidden.shape))
        return head(self, hidden)

    monkeypatch.setattr(MonoModel, "logits", spy)
    session = MODEL.session(2)
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    session.generate(ids, max_new_tokens=3)
    logits = session.read(ids)
    assert asked == [(2, 16)] * 4
    assert logits.shape == (2, 64)
    assert logits.dtype == torch.float32


def test_a_turn_reserves_what_it_needs_and_copies_nothing_a_step() -> None:
    ids = torch.tensor([[5, 6, 7]])
    session = MODEL.session()
    places = [session.cache.keys.data_ptr() for _ in session.stream(ids, max_new_tokens=6)]
    assert len(set(places)) == 1
    assert session.length == session.cache.capacity == 8  # the sixth id is pending


def test_a_session_grows_seldom() -> None:
    session = MODEL.session()
    capacities = []
    for _ in range(40):
        session.read(torch.tensor([[5]]))
        capacities.append(session.cache.capacity)
    assert sorted(set(capacities)) == [1, 2, 4, 8, 16, 32, 64]


@settings(max_examples=30)
@given(capacity=st.integers(0, 9), length=st.integers(0, 9), wanted=st.integers(0, 20))
def test_reserving_keeps_what_is_written(capacity: int, length: int, wanted: int) -> None:
    cache = KVCache(tiny_decoder(), 2, capacity, device="cpu", dtype=torch.float32)
    length = min(length, capacity)
    keys, values = torch.randn(2, 2, 2, 2, length, 4)
    for layer in range(2):
        cache.write(layer, keys[layer], values[layer])
    documents = torch.randint(2, (2, length), dtype=torch.int32)
    cache.advance(documents, torch.arange(2 * length).view(2, length))
    cache.reserve(wanted)
    assert cache.capacity == max(capacity, wanted) == cache.documents.shape[1]
    assert cache.length == length
    assert torch.equal(cache.keys[:, :, :, :length], keys)
    assert torch.equal(cache.values[:, :, :, :length], values)
    assert torch.equal(cache.documents[:, :length], documents)
    assert torch.equal(cache.words[:, :length], torch.arange(2 * length).view(2, length))
    assert not cache.documents[:, length:].any()
    more = torch.zeros(2, 2, max(capacity, wanted) - length, 4)
    assert cache.write(0, more, more)[0].shape[2] == max(capacity, wanted)


def test_a_training_model_may_hold_a_session() -> None:
    model = tiny_model(tiny_config()).train()
    session = model.session()
    session.generate(torch.tensor([[5, 6]]), max_new_tokens=2)
    model(torch.tensor([[5, 6]])).logits.sum().backward()
    session.generate(torch.tensor([[7]]), max_new_tokens=2)
    assert model.training
