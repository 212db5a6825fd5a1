"""What a standing move remembers: `realize.moves.state`."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from realize.moves.state import MAX_FILE_FAILURES, MAX_STATE_BYTES, FileFailure, MoveState, Unfinished
from realize.moves.status import RunResult

RUN = RunResult(run="3f", began=1.5, ended=2.0, moved_files=3, moved_bytes=4, failed_files=1, error="e", code="failed")
FAILURE = FileFailure(source="/src", path=b"a/\xff\n", since=7.25, attempts=3, code="BUSY", error="is open")
FULL = MoveState(
    paused=True,
    last_run=RUN,
    last_success=2.0,
    failing_since=3.0,
    error="away",
    attempts=4,
    last_due=5.0,
    unfinished=Unfinished(until=6.0),
    failures=(FAILURE,),
)

TIMES = st.floats(0, 1e11)
COUNTS = st.integers(0, 1 << 62)
STATES = st.builds(
    MoveState,
    paused=st.booleans(),
    last_run=st.none()
    | st.builds(RunResult, run=st.text(), began=TIMES, ended=TIMES, moved_bytes=COUNTS, error=st.text()),
    last_success=st.none() | TIMES,
    failing_since=st.none() | TIMES,
    error=st.text(),
    attempts=COUNTS,
    last_due=st.none() | TIMES,
    unfinished=st.none() | st.builds(Unfinished, until=st.none() | TIMES),
    failures=st.lists(
        st.builds(FileFailure, source=st.text(), path=st.binary(), since=TIMES, attempts=COUNTS, error=st.text()),
        max_size=3,
    ),
)


def changed(**fields) -> bytes:
    """The form of a full state, with other values in it."""
    return json.dumps(json.loads(FULL.to_json()) | fields).encode()


@given(STATES)
def test_what_is_kept_comes_back(state):
    """A state that was written is read as the same one, whatever is in names and sentences."""
    assert state == MoveState.from_json(state.to_json())


def test_the_form_is_text_that_people_can_read():
    """Paths are base64, as they may be no text; all else is as people would write it."""
    row = json.loads(FULL.to_json())

    assert "realize move state 1" == row["format"]
    assert {"source": "/src", "path": "YS//Cg==", "since": 7.25} == {
        key: row["failures"][0][key] for key in ("source", "path", "since")
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"[]",
        b"{}",
        b"nan",
        b"[" * 100_000,
        b"1" * 100_000,
        FULL.to_json()[:-9],
        changed(format="realize move state 2"),
        changed(format=None),
        changed(surplus=1),
        changed(paused=1),
        changed(paused="false"),
        changed(attempts=-1),
        changed(attempts=True),
        changed(attempts=1.5),
        changed(error=None),
        changed(error=["x"]),
        changed(last_success="yesterday"),
        changed(last_success=-1),
        changed(last_success=float("nan")),
        changed(last_success=float("inf")),
        changed(last_success=10**400),
        changed(last_success=1e300),
        changed(attempts=10**30),
        changed(last_run=[]),
        changed(last_run={"run": "x"}),
        changed(failures={"a": 1}),
        changed(failures="abc"),
        changed(failures=None),
        changed(failures=[{"source": "x", "path": "not base64!", "since": 1}]),
        changed(failures=[{"source": "x", "path": 1, "since": 1}]),
        changed(failures=[{"source": "x", "path": "", "since": 1, "surplus": 1}]),
        b" " * (MAX_STATE_BYTES + 1),
    ],
    ids=lambda content: content[:40].decode(errors="replace"),
)
def test_anything_else_is_refused_as_a_whole(content):
    """Rubbish, another version of the form, and values that no state has: one sentence, and nothing of it is used."""
    with pytest.raises(ValueError, match=r"^(is|has) "):
        MoveState.from_json(content)


@pytest.mark.parametrize("missing", ["last_due", "unfinished", "attempts", "failures"])
def test_what_a_file_does_not_have_is_as_in_a_new_state(missing):
    """A field that came later is missing in what an older version wrote."""
    row = json.loads(FULL.to_json())
    del row[missing]

    assert evolve(FULL, **{missing: getattr(MoveState(), missing)}) == MoveState.from_json(json.dumps(row).encode())


def test_only_so_many_failures_are_kept():
    """The first thousand are; the others are found again."""
    state = MoveState(failures=[evolve(FAILURE, attempts=number) for number in range(MAX_FILE_FAILURES + 5)])

    assert list(range(MAX_FILE_FAILURES)) == [each.attempts for each in state.failures]


def test_the_longest_names_do_not_make_it_too_long_to_be_read():
    """With failures whose names and sentences are as long as can be, fewer are kept."""
    long = FileFailure(source="/" + "s" * 4_000, path=b"\xff" * 4_000, since=1.0, error="\U0001f600" * 5_000)
    content = MoveState(failures=[long] * MAX_FILE_FAILURES).to_json()

    assert len(content) <= MAX_STATE_BYTES
    assert 100 < len(MoveState.from_json(content).failures)
