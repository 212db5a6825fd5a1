"""What shells complete: bash, zsh and fish as they come, at a terminal where they need one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from realize.cli.completion.grammar import ARGUMENTS, VALUES, commands_of
from realize.cli.completion.scripts import SHELLS
from realize.cli.completion.words import WORDS_OF, _Known, words
from realize.cli.main import realize
from tests.processes import ENVIRONMENT
from tests.prometheus import program
from tests.terminals import Terminal

COMMAND_CONFIG = """
[peers.nas]
dirs = { inbox = ["write"], incoming = ["write"], archive = ["read"] }
[peers.camera]
[moves.photos]
from = ["/store/camera"]
to = "nas::photos/2024"
[moves.films]
from = ["camera:9772::films", "nas::inbox"]
to = "/store/films"
"""
OTHER_CONFIG = "[peers.elsewhere]\ndirs = { only = [] }\n"

HOSTILE = [
    "not TOML at all [",
    'peers = "text"\nmoves = 3\n',
    "[peers]\nnas = 7\n[moves]\na = []\nb = { from = 3, to = [[]] }\n",
    '[peers."$(touch owned)"]\n[peers."z ; touch owned"]\n[peers."z`touch owned`"]\n',
    "a = " + "[" * 100_000,
    "\x00",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a configuration, a folder to be in, the command on the PATH, and the scripts."""
    place = tmp_path_factory.mktemp("home")
    config = place / ".config" / "realize" / "realize.toml"
    config.parent.mkdir(parents=True)
    config.write_text(COMMAND_CONFIG)
    (place / "other file.toml").write_text(OTHER_CONFIG)
    folder = place / "here"
    folder.mkdir()
    for name in ("narrow", "nice name", "zebra"):
        (folder / name).mkdir()
    (folder / "zoo.txt").write_text("")
    command = place / "bin" / "realize"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m realize.cli.start "$@"\n')
    command.chmod(0o755)
    for shell in SHELLS:
        (place / f"script.{shell}").write_text(CliRunner().invoke(realize, ["completion", shell]).stdout)
    return place


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    """What the shells find in their environment."""
    variables = {
        **ENVIRONMENT,
        "HOME": str(home),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "2000",
    }
    return {
        name: value for name, value in variables.items() if name not in {"PROMPT_COMMAND", "ENV", "BASH_ENV", "ZDOTDIR"}
    }


@pytest.fixture(scope="module")
def bash(home: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    """A bash that has read the script."""
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"], environment, str(home / "here"))
    try:
        terminal.run("PS1='$ '; bind 'set enable-bracketed-paste off'; bind 'set bell-style none'")
        terminal.run(r"""bind -x '"\C-xp": printf "<<%s>>\n" "$READLINE_LINE"'""")
        terminal.run(f"source {home}/script.bash")
        yield terminal
    finally:
        terminal.close()


@pytest.fixture(scope="module")
def zsh(home: Path, environment: dict[str, str]) -> Iterator[Terminal]:
    """A zsh that finds the script where a package puts it, in a directory of its fpath."""
    (home / "fpath").mkdir()
    (home / "fpath" / "_realize").write_text((home / "script.zsh").read_text())
    terminal = Terminal(["zsh", "-f", "-i"], environment, str(home / "here"))
    try:
        terminal.run("PS1='$ '; unsetopt zle_bracketed_paste prompt_sp beep; unset zle_bracketed_paste; LISTMAX=10000")
        terminal.run(f"fpath=({home}/fpath $fpath); autoload -Uz compinit; compinit -u -d {home}/zcompdump")
        terminal.run("show() { print -r -- \"<<$BUFFER>>\" }; zle -N show; bindkey -e; bindkey '^Xp' show")
        terminal.run("stty -ixon columns 200 rows 200; unsetopt auto_menu")
        yield terminal
    finally:
        terminal.close()


@pytest.fixture(scope="module")
def in_bash(bash: Terminal) -> Callable[[str], list[str]]:
    """What bash offers for a line: all of it is put into the line by M-*, a command of readline."""

    def offered(line: str) -> list[str]:
        return shlex.split(bash.line_after(line + "\x1b*").removeprefix(line.rpartition(" ")[0]))

    return offered


@pytest.fixture(scope="module")
def in_zsh(zsh: Terminal) -> Callable[[str], list[str]]:
    """What zsh offers for a line: what is on the screen when it lists the choices, or what it puts into the line."""

    def offered(line: str) -> list[str]:
        return [*zsh.shown_after(line + "\x04"), *zsh.line_after(line + "\t").split()]

    return offered


@pytest.fixture(scope="module")
def in_fish(home: Path, environment: dict[str, str]) -> Callable[[str], list[str]]:
    """What fish offers for a line."""
    fish = program("fish")

    def offered(line: str) -> list[str]:
        command = f"source {home}/script.fish; complete -C {shlex.quote(line)}"
        done = subprocess.run(
            [fish, "--no-config", "-c", command],
            cwd=home / "here",
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "" == done.stderr
        return [row.partition("\t")[0] for row in done.stdout.splitlines()]

    return offered


@pytest.fixture(params=list(SHELLS))
def offered(request, in_bash, in_zsh, in_fish) -> Callable[[str], list[str]]:
    """What each of the shells offers."""
    return {"bash": in_bash, "zsh": in_zsh, "fish": in_fish}[request.param]


CASES = [
    ("realize che", {"check"}, {"copy"}),
    ("realize ", {"move", "check", "completion", "nas::", "camera::", "narrow"}, set()),
    ("realize --thr", {"--throttle", "--throttle-up", "--throttle-down"}, {"--json"}),
    ("realize --vers", {"--version"}, set()),
    ("realize zoo.txt --dry", {"--dry-run"}, set()),
    ("realize move --prune", {"--prune-dirs"}, set()),
    ("realize copy --", {"--json", "--no-progress", "--config"}, {"--prune-dirs", "--show"}),
    ("realize keygen --", {"--show", "--help"}, {"--json"}),
    ("realize --on-conflict ", {"rename", "replace", "skip", "fail"}, {"nas::", "zoo.txt"}),
    ("realize --log-level ", {"debug", "info", "warning", "error"}, set()),
    ("realize throttle --scope ", {"service", "peer:", "connection:"}, set()),
    ("realize throttle --direction ", {"send", "receive", "both"}, set()),
    ("realize throttle ", {"nas", "camera", "unlimited"}, {"zoo.txt"}),
    ("realize status ", {"nas", "camera"}, {"zoo.txt", "nas::"}),
    ("realize moves ", {"list", "show", "run", "pause", "resume", "nas"}, {"zoo.txt"}),
    ("realize moves show ", {"photos", "films"}, {"nas"}),
    ("realize --json moves", set(), {"show"}),
    ("realize moves --json show ", {"photos", "films"}, {"nas"}),
    ("realize moves show photos ", {"nas", "camera"}, {"films"}),
    ("realize completion ", {"bash", "zsh", "fish"}, set()),
    ("realize --manifest z", {"zebra", "zoo.txt"}, set()),
    ("realize ls z", {"zebra", "zoo.txt"}, set()),
    ("realize n", {"nas::", "narrow"}, {"zoo.txt"}),
    ("realize zebra na", {"nas::", "narrow"}, {"zoo.txt"}),
]


@pytest.mark.parametrize(("line", "among", "none_of"), CASES)
def test_what_is_offered(offered, line, among, none_of):
    """Commands, options of the short form too, choices, files, peers and standing moves: each where it makes sense."""
    found = {each.removesuffix("/") for each in offered(line)}

    assert among <= found
    assert set() == none_of & found


@pytest.mark.parametrize(
    ("typed", "directories"),
    [
        ("nas::", {"nas::inbox", "nas::incoming", "nas::archive", "nas::photos"}),
        ("nas::in", {"nas::inbox", "nas::incoming"}),
        ("nas:9999::in", {"nas:9999::inbox", "nas:9999::incoming"}),
        ("--json zebra nas::in", {"nas::inbox", "nas::incoming"}),
    ],
)
def test_directories_of_a_peer(bash, in_zsh, in_fish, typed, directories):
    """Those that its table and the standing moves name. Bash, which cuts words at colons, shows what follows them."""
    line = f"realize {typed}"

    assert directories <= set(in_zsh(line))
    assert directories == set(in_fish(line))
    bare = {each.rpartition(":")[2] for each in directories}
    start = typed.rpartition(" ")[2].rpartition(":")[0] + ":"
    first, *others = bash.line_after(line + "\x1b*").removeprefix(f"realize {typed.rpartition(':')[0]}:").split()
    assert bare == {first, *(each.removeprefix(start) for each in others)}


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("realize na", "realize na"),
        ("realize nas", "realize nas::"),
        ("realize nas:", "realize nas::"),
        ("realize nas::inb", "realize nas::inbox "),
        ("realize nas::inc", "realize nas::incoming "),
        ("realize nas::ph", "realize nas::photos "),
        ("realize --json zebra nas::inb", "realize --json zebra nas::inbox "),
        ("realize camera:9772::fi", "realize camera:9772::films "),
        ("realize check nas::inb", "realize check nas::inbox "),
        ("realize check cam", "realize check camera "),
        ("realize throttle --scope peer:n", "realize throttle --scope peer:nas "),
        ("realize throttle --scope=peer:n", "realize throttle --scope=peer:nas "),
        ("realize --on-conflict=sk", "realize --on-conflict=skip "),
        ("realize --on-conflict sk", "realize --on-conflict skip "),
        ("realize che", "realize check "),
        ("realize --vers", "realize --version "),
        ("realize zoo", "realize zoo.txt "),
        ("realize ze", "realize zebra/"),
        ("realize nic", "realize nice\\ name/"),
        ("realize --config=z", "realize --config=z"),
        ("realize --config=zo", "realize --config=zoo.txt "),
        ("realize --config ../other\\ file.toml else", "realize --config ../other\\ file.toml elsewhere::"),
        ("realize --config='../other file.toml' elsewhere::", "realize --config='../other file.toml' elsewhere::only "),
        ("realize --config ~/other\\ file.toml els", "realize --config ~/other\\ file.toml elsewhere::"),
    ],
)
def test_tab_in_bash_and_zsh(bash, zsh, typed, completed):
    """One TAB leaves the line as somebody who types expects it, colons and blanks included."""
    assert completed == bash.line_after(typed + "\t")
    if completed != typed:
        # A blank that zsh adds goes when a slash or a colon follows; it adds the slash of a folder in the same way.
        assert completed.rstrip() == zsh.line_after(typed + "\t").rstrip()


def test_a_bash_that_does_not_cut_at_colons(bash):
    """As some people set it up: it completes the same."""
    bash.run("saved=$COMP_WORDBREAKS; COMP_WORDBREAKS=${COMP_WORDBREAKS//[:=]/}")
    try:
        assert "realize nas::inbox " == bash.line_after("realize nas::inb\t")
        assert "realize --on-conflict=skip " == bash.line_after("realize --on-conflict=sk\t")
        assert "realize throttle --scope=peer:nas " == bash.line_after("realize throttle --scope=peer:n\t")
    finally:
        bash.run("COMP_WORDBREAKS=$saved")


def test_the_middle_of_a_line_in_bash(bash):
    """Only what stands before the cursor counts."""
    assert "realize nas::inbox  zebra" == bash.line_after("realize nas::inb zebra\x1bb\x02\t")


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_broken_configuration_is_not_talked_of(bash, zsh, in_fish, home, shell, content):
    """Nothing is printed, nothing of it is run, and files of this machine are offered as ever."""
    (home / "here" / "broken.toml").write_text(content)
    line = "realize --config broken.toml z"
    if shell == "fish":
        found = in_fish(line)
    else:
        found = {"bash": bash, "zsh": zsh}[shell].shown_after(line + {"bash": "\x1b?", "zsh": "\x04"}[shell])

    assert {"zebra", "zoo.txt"} <= {each.removesuffix("/") for each in found}
    assert not [each for each in found if any(word in each for word in ("rror", "Traceback", "TOML", "touch", "nas"))]
    assert not (home / "here" / "owned").exists()


@pytest.mark.parametrize("name", ["absent.toml", "pipe", "."])
def test_a_configuration_that_is_none(home, environment, name):
    """What is missing, a pipe that nobody writes to, a folder: no words, no error, and nobody waits."""
    if name == "pipe" and not (home / "pipe").exists():
        os.mkfifo(home / "pipe")
    done = subprocess.run(
        [str(home / "bin" / "realize"), "location", name, "n"],
        cwd=home,
        env={**environment, "_REALIZE_COMPLETE": "1"},
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("arguments", [[], ["location"], ["nonsense", "", ""], ["/source", "/destination"]])
def test_nothing_else_happens_while_the_variable_is_set(home, environment, arguments):
    """A script of another version gets no words, which moves nothing; who has exported the variable is told."""
    done = subprocess.run(
        [str(home / "bin" / "realize"), *arguments],
        env={**environment, "_REALIZE_COMPLETE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (1, "") == (done.returncode, done.stdout)
    assert "_REALIZE_COMPLETE is set, which only scripts for completion do: unset it" in done.stderr


@pytest.mark.parametrize("arguments", [["location", "'", ""], ["steered", "\\", ""], ["scope", '~nobody/"', "x"]])
def test_a_line_with_open_quotes(home, environment, arguments):
    """Somebody is still typing: no words, and no error."""
    done = subprocess.run(
        [str(home / "bin" / "realize"), *arguments],
        env={**environment, "_REALIZE_COMPLETE": "1"},
        capture_output=True,
        check=False,
    )

    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)


def test_the_variable_of_the_environment_names_the_configuration(home, environment):
    """As for the command itself."""
    done = subprocess.run(
        [str(home / "bin" / "realize"), "location", "", ""],
        env={**environment, "_REALIZE_COMPLETE": "1", "REALIZE_CONFIG": str(home / "other file.toml")},
        capture_output=True,
        check=False,
    )

    assert b"elsewhere::\n" == done.stdout


def test_names_of_the_daemon():
    """Its standing moves and the peers that it limits are known, but only the command's peers can be moved to."""
    known = _Known({"peers": {"nas": {}}}, {"peers": {"camera": {}}, "moves": {"night": {"to": "nas::night"}}})

    assert ["night"] == words("steered", "", ["run"], known)
    assert ["peer:camera", "peer:nas"] == words("scope", "peer:", [], known)
    assert ["nas::"] == words("location", "", [], known)
    assert ["nas::night"] == words("location", "nas::", [], known)


def test_little_is_loaded():
    """Somebody waits: no click, no attrs, no Twisted, none of our modules but those that know where files are."""
    code = "import sys; from realize.cli.start import main; main(); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "location", "", ""],
        env={**ENVIRONMENT, "_REALIZE_COMPLETE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = set(done.stderr.split())
    ours = {"realize", "realize.cli", "realize.cli.start", "realize.cli.completion", "realize.cli.completion.words"}
    assert {*ours, "realize.places"} == {each for each in loaded if each.partition(".")[0] == "realize"}
    assert set() == loaded & {
        "click",
        "attr",
        "attrs",
        "cattrs",
        "twisted",
        "cryptography",
        "typing_extensions",
        "socket",
    }


def test_every_value_and_argument_is_known():
    """A new name for a value has to be added to the grammar: a file, a word, or nothing to be known."""
    for command in realize.commands.values():
        context = click.Context(command, **realize.context_settings)
        for each in command.params:
            metavar = each.make_metavar(context)
            if isinstance(each.type, click.Choice) or getattr(each, "is_flag", False) or getattr(each, "count", False):
                continue
            assert metavar.strip("[=]") in VALUES or metavar in ARGUMENTS, f"{command.name}: {metavar}"
    asked = {each.asks for each in (*VALUES.values(), *ARGUMENTS.values()) if each.asks}
    assert set(WORDS_OF) == asked


def test_an_option_takes_a_value_in_all_commands_or_in_none():
    """The script for fish relies on it."""
    takes: dict[str, set[bool]] = {}
    for command in commands_of(realize):
        for option in command.options:
            for name in option.names:
                takes.setdefault(name, set()).add(option.value is not None)

    assert {} == {name: both for name, both in takes.items() if len(both) > 1}


@pytest.mark.parametrize("shell", list(SHELLS))
def test_each_script_has_each_option(home, shell):
    """All options of all commands are in it."""
    script = (home / f"script.{shell}").read_text()
    options = [option for each in commands_of(realize) for option in each.options]
    names = {name for option in options for name in (*option.names, *option.rivals)}
    if shell == "fish":
        names = {f" -l {name[2:]} " if name.startswith("--") else f" -s {name[1:]} " for name in names}

    assert set() == {name for name in names if name not in script}
    assert "@TABLES@" not in script


def test_the_shells_of_the_command():
    """`realize completion` takes those that there are scripts for."""
    [argument] = realize.commands["completion"].params

    assert tuple(SHELLS) == tuple(argument.type.choices)
