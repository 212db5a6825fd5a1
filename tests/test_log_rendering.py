"""A record in each format, and that nothing from outside can forge one: `realize.telemetry.logging.rendering`."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realize.telemetry.logging.rendering import MAX_VALUE_CHARS, renderer, stamper
from realize.units import display_name

TS = "2023-11-14T22:13:20.250000Z"
NASTY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from('\n\r\t\x1b\x00\x7f\x85\u2028\u2029\u202e\u2066\ufeff" =\\{}[]<>\udcff'),
    )
)


def render(form, level="info", **fields):
    """The bytes of a record, through the whole chain."""
    ts = stamper(lambda: 1_700_000_000.25)()
    return renderer(form)(
        None, level, {"ts": ts, "level": level, "event": "file_committed", "component": "store", **fields}
    )


def logfmt(line):
    """A strict reader of logfmt: the pairs, if they are all there is."""
    pairs = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"=]*)(?: |$)', line)
    assert line == " ".join(f"{key}={value}" for key, value in pairs)
    return {
        key: re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL) if value.startswith('"') else value
        for key, value in pairs
    }


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (
            "json",
            (
                f'{{"ts":"{TS}","level":"info","event":"file_committed","component":"store","path":"a b","size":5,'
                '"digest":null,"replaced":false,"dirs":["x","y"]}\n'
            ),
        ),
        (
            "logfmt",
            (
                f'ts={TS} level=info event=file_committed component=store path="a b" size=5 digest= replaced=false '
                "dirs=x,y\n"
            ),
        ),
        (
            "console",
            (
                f'{TS} [info     ] file_committed       component=store path="a b" size=5 digest=- replaced=False '
                "dirs=x,y\n"
            ),
        ),
        ("systemd", '<6>file_committed component=store path="a b" size=5 digest= replaced=false dirs=x,y\n'),
    ],
)
def test_a_record_in_each_format(form, expected):
    """One line, with what is looked for first in front."""
    line = render(form, path="a b", size=5, digest=None, replaced=False, dirs=["x", "y"])

    assert expected == line.decode()


@pytest.mark.parametrize(("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)])
def test_the_journal_learns_the_level(level, priority):
    """As a priority, also for each line of a traceback."""
    lines = render("systemd", level, exc="Traceback\n  one\nError").decode().splitlines()

    assert [f"<{priority}>"] * 4 == [line[:3] for line in lines]


@pytest.mark.parametrize("form", ["console", "systemd"])
def test_tracebacks_are_indented(form):
    """No line of a traceback can be taken for a record, whatever its text says."""
    text = render(form, exc=f"Traceback\n{TS} [info] forged\r\x1b[2K\nError: x\n").decode()

    first, *others = text.removesuffix("\n").split("\n")
    assert "file_committed" in first
    assert 3 == len(others)
    assert {"    "} == {line.removeprefix("<6>")[:4] for line in others}
    assert "\x1b" not in text
    assert "\r" not in text


def test_a_traceback_is_one_string_in_json():
    """So that every line of the stream is JSON."""
    line = render("json", exc="Traceback\n  one\nError: \x1b[31mred\n").decode()

    assert 1 == line.count("\n")
    assert "Traceback\n  one\nError: \\x1b[31mred" == json.loads(line)["exc"]


@given(NASTY, st.binary())
def test_no_value_forges_a_line_or_a_field_of_json(text, name):
    """One line of ASCII-clean JSON with exactly the fields that were logged."""
    line = render("json", error=text, path=display_name(name)).decode()

    assert line.removesuffix("\n").isprintable()
    record = json.loads(line)
    assert ["ts", "level", "event", "component", "error", "path"] == list(record)
    assert display_name(name) == record["path"]


@given(NASTY, st.binary())
def test_no_value_forges_a_line_or_a_field_of_logfmt(text, name):
    """One line that a strict reader splits into exactly the fields that were logged."""
    line = render("logfmt", error=text, path=display_name(name)).decode()

    assert line.removesuffix("\n").isprintable()
    assert ["ts", "level", "event", "component", "error", "path"] == list(logfmt(line.removesuffix("\n")))


@given(NASTY, st.binary())
def test_no_value_forges_a_line_or_a_field_of_systemd(text, name):
    """The same behind the priority and the event."""
    line = render("systemd", error=text, path=display_name(name)).decode()

    assert line.removesuffix("\n").isprintable()
    priority, event, rest = re.match(r"(<6>)(\w+) (.*)\n\Z", line).groups()
    assert ("<6>", "file_committed") == (priority, event)
    assert ["component", "error", "path"] == list(logfmt(rest))


@given(NASTY, st.binary())
def test_no_value_forges_a_line_or_a_field_on_a_console(text, name):
    """The same behind time, level and event."""
    line = render("console", error=text, path=display_name(name)).decode()

    assert line.removesuffix("\n").isprintable()
    rest = line.removesuffix("\n").removeprefix(f"{TS} [info     ] file_committed       ")
    assert ["component", "error", "path"] == list(logfmt(rest))


@given(
    st.recursive(
        NASTY | st.integers() | st.none() | st.floats(), lambda inner: st.lists(inner) | st.dictionaries(NASTY, inner)
    )
)
def test_nested_values_are_no_worse(value):
    """Lists and tables of nasty texts stay one line too, in every format."""
    lines = [render(form, value=value).decode() for form in ("json", "logfmt", "console", "systemd")]

    assert [1] * 4 == [line.count("\n") for line in lines]
    assert all(line.removesuffix("\n").isprintable() for line in lines)


@pytest.mark.parametrize("form", ["logfmt", "console", "systemd"])
def test_lists_and_tables_read_as_text(form):
    """Not in the notation of a programming language."""
    stopped = [{"path": "big", "size": 9, "reached": None}, {"path": "b", "size": 1, "reached": 1}]

    line = render(form, interrupted=stopped, peers={"camera": 1000}, dirs=["a", "b"]).decode()

    assert 'interrupted="path=big size=9 reached=-; path=b size=1 reached=1"' in line
    assert 'peers="camera=1000"' in line
    assert "dirs=a,b" in line


def test_long_values_are_cut():
    """A peer cannot fill the log with one value."""
    assert MAX_VALUE_CHARS + 1 == len(json.loads(render("json", error="x" * 100_000))["error"])
    assert 2 * MAX_VALUE_CHARS + 1 >= len(json.loads(render("json", exc="x" * 100_000))["exc"])


def test_foreign_objects_become_text():
    """What is neither text nor number is shown as text; no value makes logging fail."""
    record = json.loads(render("json", value=ValueError("a\nb"), big=1 << 80))

    assert ("a\\nb", str(1 << 80)) == (record["value"], str(record["big"]))


@pytest.mark.parametrize("before", ["", "import rich; ", "import structlog; "])
def test_rich_is_not_loaded_for_a_log(before):
    """It is large, and draws nothing of ours; who needs it, or had it before, has it all the same."""
    code = f"{before}import sys; had = 'rich' in sys.modules; from realize.telemetry import structlog; "
    code += "print(had, 'rich' in sys.modules, structlog.get_logger is not None); import rich"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert said[0] == said[1]
    assert "True" == said[2]
