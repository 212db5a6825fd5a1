"""What the command loads at its start, and what processes load later: the first is kept small, the second nothing.

`tests/loaded/NAME.txt` has the modules of Realize, each, and the packages of others at their top, each of which costs
0.1 to 20 ms. The page for this is "The start" in docs/design.md.
"""

import subprocess
import sys
from pathlib import Path

import twisted

from realize.cli.stand_ins import EXAMINED
from tests.processes import ENVIRONMENT, Proxy, Site, digests, plant, wait_for

LISTS = Path(__file__).parent / "loaded"

ADVICE = """
What a plain run does not need is imported where it is needed, by a module of its own if it is more than a line or two,
and is among what `realize.concurrency.loading_ahead` loads, if it may be needed late. If every run does need it, put it
into tests/loaded/{name}.txt, and its cost into the message of the commit (`python -X importtime`)."""


def loaded(tmp_path, *arguments, environ=None):
    """What is loaded when the command ends, beside what Python itself has loaded before, and what is loaded ahead.

    A Twisted that is not examined loads asyncio (`realize.cli.stand_ins`), which says nothing of our modules.
    """
    report = tmp_path / "loaded"
    code = "" if twisted.__version__ in EXAMINED else "import asyncio\n"
    code += (
        "import os, sys\n"
        "import realize.cli.stand_ins as stand_ins\n"
        "before, end, load_twisted = set(sys.modules), os._exit, stand_ins.load_twisted\n"
        "def starting():\n"
        "    load_twisted()\n"
        "    import realize.concurrency.loading_ahead as ahead\n"
        "    ahead.LOAD_AFTER_S = 600.0\n"
        "stand_ins.load_twisted = starting\n"
        "def ending(code):\n"
        "    now = {name for name, module in sys.modules.items() if type(module) is not stand_ins._Later}\n"
        f"    open({str(report)!r}, 'w').write(chr(10).join(now - before))\n"
        "    end(code)\n"
        "os._exit = ending\n"
        f"sys.argv = {['realize', *map(str, arguments)]!r}\n"
        "from realize.cli.start import main\n"
        "main()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env={**ENVIRONMENT, **(environ or {})},
        capture_output=True,
        check=True,
        timeout=60,
    )
    names = report.read_text().split()
    ours = {each for each in names if each.partition(".")[0] == "realize"}
    others = {each.partition(".")[0] for each in names} - {"realize"}
    # What begins so is imported by another module of the library, and is not the same in all versions of Python.
    return ours | {each for each in others if not each.startswith("_")}


def check(name, now):
    """Compare with the list; what is there of other packages may be less, since versions of Python differ."""
    listed = set((LISTS / f"{name}.txt").read_text().split())
    gone = {each for each in listed - now if each.partition(".")[0] == "realize"}

    added = "".join(f"\n  + {each}" for each in sorted(now - listed))
    removed = "".join(f"\n  - {each}" for each in sorted(gone))
    assert not added, (
        f"more is loaded at the start than tests/loaded/{name}.txt has:{added}\n{ADVICE.format(name=name)}"
    )
    assert not removed, f"less is loaded than tests/loaded/{name}.txt has; take out of it:{removed}"


def test_help_loads_no_more(tmp_path):
    """Nothing that runs anything, and nothing of Twisted or of TLS."""
    check("help", loaded(tmp_path, "--help"))


def test_a_plain_move_to_a_daemon_loads_no_more(tmp_path):
    """No log, no metrics, no patterns, no display that is not used, nothing that only daemons need."""
    site = Site(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"content")
    site.start()
    try:
        environ = {"REALIZE_CONFIG": str(tmp_path / "realize.toml")}
        now = loaded(tmp_path, "--quiet", tmp_path / "source", "hostb::inbox", environ=environ)
    finally:
        site.stop()

    assert b"content" == (site.inbox / "file").read_bytes()
    check("move", now)


def test_a_daemon_that_is_not_asked_for_metrics_loads_none():
    """Neither Prometheus nor what writes HTTP, until a service is made that needs it."""
    code = "import sys, realize.daemon.tap; print(sorted({'prometheus_client', 'twisted.web'} & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)

    assert "[]\n" == done.stdout


LATE = """
import sys
import realize.concurrency.loading_ahead as ahead

loaded, load = [], ahead._load
ahead.LOAD_AFTER_S = 0.0

def audit(event, what):
    if event == "import":
        print(what[0], file=report, flush=True)

def loading(*what):
    load(*what)
    loaded.append(what)
    if len(loaded) == {times}:
        from twisted.internet import reactor
        from twisted.logger import Logger
        print("all", file=report, flush=True)
        sys.addaudithook(audit)
        reactor.callLater(0.1, lambda: Logger().error("a fault"))

ahead._load = loading
report = open({report!r}, "w")
"""
"""Before a program: it loads ahead at once, ``times`` over, logs a fault, and reports what it loaded after that."""


def test_nothing_is_loaded_late(tmp_path):
    """An upgrade of the packages breaks no process that runs: neither the end of a long run nor what a daemon does.

    There is a file that replaces another one, one that is cut off and comes back, one with two names, a manifest,
    metrics, and a fault.
    """
    daemon, command = tmp_path / "of daemon", tmp_path / "of command"
    twistd = LATE.format(times=1, report=str(daemon)) + "from twisted.scripts.twistd import run; run()"
    site = Site(tmp_path)
    site.program = [sys.executable, "-c", twistd]
    source = tmp_path / "source"
    plant(source, 1, small=20, large=2)
    (source / "second name").hardlink_to(source / "large 1")
    (site.inbox / "large 0").write_bytes((source / "large 0").read_bytes()[1000:])
    expected = digests(source)
    site.start()
    proxy = Proxy(site.port)
    direct, site.port = site.port, proxy.port
    site.write_command_config()
    options = ["-v", "--on-conflict=replace", "--throttle=2M", "--preserve=mode,times,hardlinks"]
    options += [f"--manifest={tmp_path / 'manifest'}", f"--metrics-textfile={tmp_path / 'prom'}"]
    code = LATE.format(times=3, report=str(command)) + (
        f"sys.argv = {['realize', *options, str(source), 'hostb::inbox']!r}\nfrom realize.cli.start import main; main()"
    )
    try:
        with subprocess.Popen(
            [sys.executable, "-c", code],
            env={**ENVIRONMENT, "REALIZE_CONFIG": str(tmp_path / "realize.toml")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as moving:
            wait_for(lambda: proxy.passed > 1 << 20)
            proxy.cut()
            said, _ = moving.communicate(timeout=60)
    finally:
        proxy.close()
        site.port = direct
        site.stop()

    assert (0, expected) == (moving.returncode, digests(site.inbox)), said
    assert "a fault" in said
    assert (["all"], ["all"]) == (command.read_text().split(), daemon.read_text().split())
