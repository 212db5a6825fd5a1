"""The man pages: as man(1) shows them, complete and without a complaint of groff."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from realize.cli.main import realize
from realize.daemon.tap import Options
from release.man.pages import EXPLAINED_IN, SCRIPTING, USAGE, Pages
from release.man.roff import code, line_of, macro, markdown, text
from tests.pages import ROOT, page
from tests.prometheus import program

COMMANDS = sorted(realize.commands)
NAMES = sorted(Pages(ROOT / "docs").all())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as `make man` writes them."""
    place = tmp_path_factory.mktemp("man")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "86400"}
    subprocess.run([sys.executable, "-m", "release.man", str(place)], cwd=ROOT, env=environment, check=True)
    return place


def man(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the program man says of pages of that folder, in lines that are long enough for everything."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAN", "GROFF"))}
    environment |= {"LC_ALL": "C.UTF-8", "MANWIDTH": "1000", "MANPAGER": "cat", "MAN_KEEP_FORMATTING": ""}
    return subprocess.run(
        [program("man"), "-M", str(folder), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


def shown(folder: Path, *words: str) -> str:
    """A page as somebody reads it."""
    return man(folder, *words).stdout


def headings(shown_page: str) -> list[str]:
    """Its sections."""
    return re.findall(r"^[A-Z][A-Z .]+$", shown_page, flags=re.MULTILINE)


def terms(shown_page: str, heading: str) -> set[str]:
    """The options that a section explains, in all their spellings."""
    part = re.split(rf"^{heading}$", shown_page, flags=re.MULTILINE)[1]
    part = re.split(r"^[A-Z]", part, flags=re.MULTILINE)[0]
    return {
        each
        for line in re.findall(r"^ {7}(-.*)$", part, flags=re.MULTILINE)
        for each in re.findall(r"--?[a-z0-9][\w-]*", line)
    }


@pytest.mark.parametrize("name", NAMES)
def test_groff_has_nothing_to_complain_of(folder, name):
    """Every page is rendered without a warning."""
    stem, _, number = name.rpartition(".")
    done = man(folder, "--warnings", "-E", "UTF-8", "-Tutf8", "-Z", number, stem)

    assert "" == done.stderr
    assert "" != done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_explained(folder, name):
    """The page of a command has all of its options, and no other; `man realize move` finds it."""
    command = realize.commands[name]
    known = {
        written
        for each in command.params
        if isinstance(each, click.Option)
        for written in (*each.opts, *each.secondary_opts)
    }

    assert {*known, "-h", "--help"} == terms(shown(folder, "realize", name), "OPTIONS")


def test_the_options_of_the_daemon(folder):
    """Those of its command line."""
    options = Options()
    named = {f"--{row[0]}" for row in (*options.optParameters, *options.optFlags)}
    named |= {f"-{row[1]}" for row in (*options.optParameters, *options.optFlags) if row[1]}

    assert named == terms(shown(folder, "realized"), "OPTIONS")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_sections_of_a_command(folder, name):
    """They are those that a reader of man pages looks for, in the usual order."""
    usual = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "OPTIONS",
        "EXIT STATUS",
        "ENVIRONMENT",
        "FILES",
        "EXAMPLES",
        "SEE ALSO",
    ]
    found = headings(shown(folder, "realize", name))

    assert [each for each in usual if each in found] == [each for each in found if each in usual]
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"} <= set(found)
    configured = any("--config" in each.opts for each in realize.commands[name].params)
    assert configured == ({"ENVIRONMENT", "FILES"} <= set(found))


def test_every_section_of_the_usage_is_in_a_page():
    """What docs/usage.md, its companions and docs/scripting.md explain is in the page of a command, or of all."""
    contents = "".join(map(page, [USAGE, SCRIPTING, *(name for names in EXPLAINED_IN.values() for name in names)]))
    titles = re.findall(r"^## (.+)$", contents, flags=re.MULTILINE)
    found = re.findall(r'^\.SH "(.+)"$', "\n".join(Pages(ROOT / "docs").all().values()), flags=re.MULTILINE)

    assert {"EXIT CODES"} == {title.upper() for title in titles} - set(found)


def test_every_key_of_the_configuration(folder):
    """Both names lead to a page that has each key of docs/configuration.md."""
    keys = re.findall(r"^\| `([\w.]+)` \|", page("configuration.md"), flags=re.MULTILINE)
    content = shown(folder, "5", "realized.toml")

    assert content == shown(folder, "5", "realize.toml")
    assert "[peers.camera]\n" in content
    assert len(keys) > 30
    assert [] == [key for key in keys if not re.search(rf"^ {{7}}{re.escape(key)}( |$)", content, flags=re.MULTILINE)]


@pytest.mark.parametrize("name", NAMES)
def test_no_markdown_is_left(folder, name):
    """Links, tables and emphasis have become what a terminal shows."""
    stem, _, number = name.rpartition(".")
    content = shown(folder, number, stem)
    prose = "\n".join(line for line in content.splitlines() if not line.startswith(" " * 11))

    assert [] == [mark for mark in ("](", "|---", "`") if mark in prose]


def test_pages_that_are_named_exist(folder):
    """What SEE ALSO and links name is a page of ours, or of Twisted."""
    named = {
        each for name in NAMES for each in re.findall(r"\b(realize[\w.-]*)\((\d)\)", (Pages(ROOT / "docs").all())[name])
    }

    assert set() == {f"{name}.{number}" for name, number in named} - set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_page_sends_to_itself(name):
    """A link to a section that is on the same page has no page behind it."""
    stem, _, number = name.rpartition(".")

    assert text(f" ({stem}({number}))") not in Pages(ROOT / "docs").all()[name]


def test_a_link_names_the_page_that_has_the_section():
    """Sections of docs/usage.md are on the pages of different commands."""
    assert text("see Backups (realize-move(1))") in Pages(ROOT / "docs").all()["realize.toml.5"]


def test_the_date_is_that_of_the_release(folder):
    """Two builds of the same sources are the same."""
    assert "1970-01-02" in shown(folder, "realize").splitlines()[-1]


def test_what_would_be_a_request_is_text():
    """A line that begins with a dot, backslashes and quotes are shown, hyphens of options can be copied."""
    assert "\\&.hidden" == line_of(text(".hidden"))
    assert "a\\(rsb \\(aqc\\(aq \\(ti/\\(gad\\(ga" == text("a\\b 'c' ~/`d`")
    assert "well-known \\-\\-option and \\-1" == text("well-known --option and -1")
    assert "a\\-b" == code("a-b")
    assert '.SH "a \\(dqb\\(dq"' == macro("SH", 'a "b"')


def test_markdown():
    """Lists, examples, tables and links, as macros."""
    table = "| key | meaning | default |\n|---|---|---|\n| `a-b` | **it** | 1 |\n"
    source = f"One [page](other.md#x).\n\n* first\n* second\n\n&nbsp;\n\n    .run `it`\n\n{table}"

    lines = list(markdown(source, lambda address, shown: f" ({address}, {shown})"))

    assert [".PP", "One page (other.md#x, page).", ".IP \\(bu 3", "first", ".IP \\(bu 3", "second"] == lines[:6]
    assert [".EX", "\\&.run \\(gait\\(ga", ".EE"] == lines[-10:-7]
    assert [".TP", "\\fBa\\-b\\fR", "\\fBit\\fR", ".br", "Default: 1", ".PP"] == lines[-6:]
    with pytest.raises(ValueError, match="HTML has no form"):
        list(markdown("<div>\n\n", lambda *_: ""))
