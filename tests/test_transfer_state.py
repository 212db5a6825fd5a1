"""Which step of a transfer is legal when: every order of the steps, beside the same rules in other words."""

import itertools

import pytest

from realize.errors import ProtocolError
from realize.store.transfer_state import ReadState, WritePhase, WriteState
from realize.values import BLOCK_BYTES, SPAN_BYTES, SPANS_AHEAD

SIZE = 4
PHASES = list(WritePhase)


def refused(step, *arguments):
    """Whether the step is not legal."""
    try:
        step(*arguments)
    except ProtocolError:
        return True
    return False


def visible(state):
    """All that a transfer knows, but that somebody has tried to offer or to write."""
    names = {name for kind in type(state).__mro__ for name in getattr(kind, "__slots__", ())}
    known = {name: getattr(state, name) for name in names - {"_begun", "__weakref__"}}
    return {name: list(map(list, value)) if name == "_spans" else value for name, value in known.items()}


class History:
    """What has happened to a file that is written, and from it alone what may happen next."""

    def __init__(self):
        self.compared = 0
        self.offered = []
        self.wanted = 0
        self.content = 0
        self.tried = False
        self.over = False

    def legal(self, step, length):
        """Whether it may come now."""
        if self.over:
            return False
        promised = self.compared + sum(given for given, _ in self.offered)
        waiting = [given for given, answer in self.offered if answer is None]
        if step == "match":
            return not self.tried and promised + length <= SIZE
        if step == "offer":
            return self.content <= self.wanted and promised + length <= SIZE
        rest = max(0, self.content + length - self.wanted)
        return not rest or (not waiting and promised + rest <= SIZE)

    def happened(self, step, length):
        """It has."""
        if step == "match":
            self.compared += length
        elif step == "offer":
            self.offered.append((length, None))
        else:
            self.content += length


WRITE_STEPS = [
    ("match", 1),
    ("match", 3),
    ("offer", 1),
    ("offer", 2),
    ("write", 0),
    ("write", 1),
    ("write", 2),
    ("answer", True),
    ("answer", False),
    ("fail", None),
    ("end", None),
]


def write_one(state, history, step, length):
    """Take a step in both; whether they agree on it."""
    waiting = [number for number, (_, answer) in enumerate(history.offered) if answer is None]
    if step in {"answer", "fail"}:
        if waiting:
            given, _ = history.offered[waiting[0]]
            history.offered[waiting[0]] = given, True
            if step == "fail":
                state.dropped()
            else:
                history.wanted += given * length
                state.answered(given, given * length)
        return True
    if step == "end":
        history.over = True
        state.end()
        return True
    legal = history.legal(step, length)
    before = visible(state)
    arguments = (1, length) if step == "match" else (length,)
    agreed = refused(getattr(state, step), *arguments) is not legal
    history.tried = history.tried or step != "match"
    if not legal:
        return agreed and before == visible(state)
    history.happened(step, length)
    if step == "match":
        state.matched(length)
    return agreed


@pytest.mark.parametrize("first", WRITE_STEPS, ids=str)
def test_every_order_of_a_write(first):
    """A step is refused if and only if what has happened before forbids it, and then changes nothing."""
    for rest in itertools.product(WRITE_STEPS, repeat=3):
        state, history = WriteState(SIZE, have=SIZE), History()
        phases = [state.phase]
        for step in (first, *rest):
            assert write_one(state, history, *step), (first, *rest)
            phases.append(state.phase)

        assert phases == sorted(phases, key=PHASES.index), (first, *rest)
        assert max(history.content - history.wanted, 0) + state.position <= SIZE


@pytest.mark.parametrize(
    ("begin", "phase", "legal"),
    [
        ([], WritePhase.COMPARING, {"match", "offer", "write"}),
        ([("match", 1, 1)], WritePhase.COMPARING, {"match", "offer", "write"}),
        ([("write", 0)], WritePhase.FILLING, {"offer", "write"}),
        ([("offer", 1), ("answered", 1, 1)], WritePhase.FILLING, {"offer", "write"}),
        ([("offer", 1), ("answered", 1, 1), ("write", 1)], WritePhase.FILLING, {"offer", "write"}),
        ([("offer", 1), ("answered", 1, 1), ("write", 2)], WritePhase.APPENDING, {"write"}),
        ([("write", 1)], WritePhase.APPENDING, {"write"}),
        ([("end",)], WritePhase.ENDED, set()),
        ([("write", 1), ("end",)], WritePhase.ENDED, set()),
    ],
)
def test_what_each_phase_allows(begin, phase, legal):
    """The table of docs/states.md."""
    allowed = set()
    for step, arguments in (("match", (1, 1)), ("offer", (1,)), ("write", (1,))):
        state = WriteState(SIZE)
        for name, *given in begin:
            getattr(state, name)(*given)
        assert phase is state.phase
        if not refused(getattr(state, step), *arguments):
            allowed.add(step)

    assert legal == allowed


@pytest.mark.parametrize("attempt", ["offer", "write"])
def test_who_has_tried_to_send_compares_no_more(attempt):
    """Also if that was refused: nobody knows then what the other end takes to be next."""
    state = WriteState(SIZE)

    assert refused(getattr(state, attempt), SIZE + 1)
    assert refused(state.match, 1, 1)
    assert WritePhase.FILLING is state.phase


@pytest.mark.parametrize(
    ("length", "count"),
    [(0, 0), (1, 1), (BLOCK_BYTES - 1, 1), (BLOCK_BYTES, 1), (BLOCK_BYTES + 1, 2), (2 * BLOCK_BYTES, 2)],
)
def test_a_digest_for_each_block(length, count):
    """No more and no less, also for the last one that is none."""
    state = WriteState(2 * BLOCK_BYTES)

    assert [True, False, True] == [refused(state.match, number, length) for number in (count - 1, count, count + 1)]


@pytest.mark.parametrize(("have", "most"), [(None, 9), (0, 0), (3, 3), (4, 4), (9, 4)])
def test_as_much_is_compared_as_there_is(have, most):
    """Within the file, and behind what has matched; unless the partial says by itself where it ends."""
    lengths = [length for length in range(1, 10) if not refused(WriteState(SIZE, have=have).match, 1, length)]
    begun = WriteState(SIZE, have=have)
    begun.matched(1)

    assert list(range(1, most + 1)) == lengths
    assert refused(begun.match, 1, SIZE) is (have is not None)


def test_so_many_offers_are_unanswered_at_once():
    """Each that is answered, or fails, makes way for another."""
    state = WriteState(100)
    first = [refused(state.offer, 1) for _ in range(SPANS_AHEAD + 1)]
    state.answered(1, 0)
    second = [refused(state.offer, 1) for _ in range(2)]
    state.dropped()
    third = [refused(state.offer, 1) for _ in range(2)]

    assert [*[False] * SPANS_AHEAD, True] == first
    assert [[False, True]] * 2 == [second, third]


def test_a_span_at_once_is_offered():
    """And not a byte more."""
    state = WriteState(3 * SPAN_BYTES)

    assert [True, False] == [refused(state.offer, length) for length in (SPAN_BYTES + 1, SPAN_BYTES)]


def test_content_that_comes_by_itself_counts():
    """A peer sends when it has credit; what it may do next depends on what has come by then."""
    state = WriteState(10)
    phases = [state.phase]
    state.offer(4)
    state.answered(4, 3)
    for state.arrived in (2, 3, 4):
        phases.append(state.phase)
    fresh = WriteState(10)
    fresh.arrived = 1

    assert [WritePhase.COMPARING, *[WritePhase.FILLING] * 2, WritePhase.APPENDING] == phases
    assert refused(fresh.match, 0, 0)


def test_what_was_spared_is_known():
    """What matched, and what was found of that which was offered."""
    state = WriteState(10)
    state.match(1, 2)
    state.matched(1)
    state.offer(5)
    state.answered(5, 2)

    assert (6, 4) == (state.position, state.spared)


READ_STEPS = [
    ("skip", 1),
    ("skip", 3),
    ("cut", 1),
    ("cut", 2),
    ("pick", True),
    ("pick", False),
    ("flow", 1),
    ("end", 0),
]


def told_reached(told):
    """Where the next span begins: behind the last one that waits, wherever the position is by now."""
    return sum(told["spans"][-1]) if told["spans"] else told["position"]


def read_one(state, told, step, argument):
    """Take a step as a store does; whether it was refused just when what was told before forbids it."""
    before = visible(state)
    spans, flowing, over = told["spans"], told["flowing"], told["over"]
    if step == "end":
        told["over"] = True
        state.end()
        return True
    if step == "flow":
        legal = not over
        if agreed := refused(state.flow) is not legal:
            told.update(spans=[] if legal else spans, flowing=flowing or legal)
            if legal and told["position"] < SIZE:
                told["position"] += 1
                state.position += 1
        return agreed
    if step == "skip":
        legal = not over and told["position"] + argument <= SIZE
        agreed = refused(state.look, argument) is not legal
        if legal:
            state.stand()
            state.position += argument
            told.update(position=told["position"] + argument, flowing=False)
    elif step == "cut":
        legal = not over and not flowing
        agreed = refused(state.cut) is not legal
        if legal:
            fits = told_reached(told) + argument <= SIZE
            agreed = agreed and refused(state.check_cut, argument) is not fits
            if fits:
                state.was_cut([1] * argument)
                told["spans"] = [*spans, (told_reached(told), argument)]
    else:
        legal = not over and not flowing and bool(spans)
        begin, length = spans[0] if spans else (0, 1)
        picked = []
        agreed = refused(lambda: picked.append(state.pick([argument] * length))) is not legal
        if legal:
            agreed = agreed and picked[0].parts == ([(begin, length)] if argument else [])
            told.update(spans=spans[1:], position=begin + length)
    return agreed and (legal or before == visible(state)) and told["position"] == state.position


@pytest.mark.parametrize("first", READ_STEPS, ids=str)
def test_every_order_of_a_read(first):
    """A step is refused if and only if what has happened before forbids it, and then changes nothing."""
    for rest in itertools.product(READ_STEPS, repeat=3):
        state, told = ReadState(SIZE), {"position": 0, "spans": [], "flowing": False, "over": False}
        for step in (first, *rest):
            assert read_one(state, told, *step), (first, *rest)

        assert state.choices == (told["spans"][0][1] if told["spans"] else 0)
        assert state.reached == told_reached(told)
        assert refused(state.finish) is (told["position"] != SIZE)


def test_nothing_is_looked_at_beyond_the_end():
    """Nor before the position."""
    state = ReadState(SIZE)
    state.position = 1

    assert [True, False, False, True] == [refused(state.look, length) for length in (-1, 0, 3, 4)]


def test_so_many_spans_wait_to_be_picked():
    """Each that is picked makes way for another; whose turn it is not yet is not refused."""
    state = ReadState(100)
    for _ in range(SPANS_AHEAD):
        state.make_way()
        state.was_cut([1, 2])
    asked, made = refused(state.cut), refused(state.make_way)
    state.pick([True, False])

    assert (False, True, False) == (asked, made, refused(state.make_way))


def test_no_more_is_cut_than_a_span():
    """Whoever waits for it has no more room."""
    state = ReadState(3 * SPAN_BYTES)

    assert [True, False] == [refused(state.check_cut, length) for length in (SPAN_BYTES + 1, SPAN_BYTES)]


def test_what_is_cut_only_when_content_flows_cannot_be_picked():
    """Content has gone on meanwhile, and comes as it is."""
    state = ReadState(SIZE)
    state.cut()
    state.flow()
    state.position += 2
    state.was_cut([SIZE])
    choices = state.choices
    state.stand()

    assert (0, True, 2) == (choices, refused(state.pick, [True]), state.reached)


def test_nothing_cut_is_the_end():
    """There is nothing that could be picked of it."""
    state = ReadState(SIZE)
    state.was_cut([])

    assert (0, True) == (state.choices, refused(state.pick, []))


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [
        ("0000", []),
        ("1111", [(5, 10)]),
        ("1011", [(5, 1), (8, 7)]),
        ("0110", [(6, 5)]),
        ("1001", [(5, 1), (11, 4)]),
    ],
)
def test_what_is_wanted_is_put_together(wanted, parts):
    """Neighbours in one, each with its place in the file; all of the span counts, wanted or not."""
    state = ReadState(20)
    state.position = 5
    state.was_cut([1, 2, 3, 4])
    wrong = [refused(state.pick, [True] * count) for count in (0, 3, 5)]
    picked = state.pick([each == "1" for each in wanted])
    wanted_bytes = sum(length for length, each in zip((1, 2, 3, 4), wanted, strict=True) if each == "1")

    assert [True] * 3 == wrong
    assert (parts, wanted_bytes, 10 - wanted_bytes) == (picked.parts, picked.wanted, picked.spared)
    assert (15, 15) == (state.position, state.reached)


def test_nothing_leads_back_from_the_end():
    """Whoever has opened another stream meanwhile is told, and closes it."""
    state = ReadState(SIZE)
    state.flow()
    state.end()

    assert [True, True] == [refused(state.stand), refused(state.flow)]


@pytest.mark.parametrize("kind", [WriteState, ReadState])
@pytest.mark.parametrize(("path", "words"), [(None, ""), (b"d/f\n", "d/f\\n: ")])
def test_errors_name_the_file(kind, path, words):
    """As far as whoever reads them does not know it."""
    state = kind(SIZE, path)
    with pytest.raises(ProtocolError) as caught:
        state.check_digests(2, 1)

    assert f"{words}2 digests do not fit 1 bytes" == str(caught.value)
