"""`docs/howto`: each page is short, listed, and does what it says; its own commands are run (`tests/howto.py`)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.howto import World, commands, merged
from tests.pages import ROOT, rows
from tests.processes import wait_for
from tests.test_docs_operators import unknown_words

FOLDER = ROOT / "docs" / "howto"
LIST = FOLDER / "README.md"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path != LIST)
TABLES = {"from-rsync.md", "from-rclone.md"}
"""Pages that go through options one by one, and may be long."""
ALL = ["a.jpg", "b.jpg", "c.jpg"]


def arrive(*names: str, at: str = "inbox") -> Callable[[World], None]:
    """Exactly these files arrive at `nas`, soon."""
    return lambda world: wait_for(lambda: sorted(world.arrived(at)) == sorted(names))


def arrive_and_are_awaited(*names: str) -> Callable[[World], None]:
    """These files arrive, and the daemon of `camera` has the move that the page gives it."""

    def seen(world: World) -> None:
        arrive(*names)(world)
        world.machine("camera").shell("realize moves show camera", 0)

    return seen


def do_not_hurt(world: World) -> None:
    """The files of `camera` are where they were, or at `nas`."""
    left = {path.name for path in (world.machine("camera").root / "srv/camera").iterdir()}
    assert {*ALL} <= left | {*world.arrived()}


RESULTS = {
    "change-a-key.md": arrive(*ALL),
    "day-and-night.md": arrive_and_are_awaited(*ALL),
    "files-being-written.md": arrive_and_are_awaited(*ALL, "day.csv"),
    "keep-replaced.md": arrive(*ALL, "a.1.jpg", ".backup/a.jpg", ".backup/b.jpg"),
    "many-machines.md": arrive(*ALL, at="north"),
    "many-or-large-files.md": arrive(*ALL, "a.1.jpg"),
    "monitoring.md": arrive(*ALL),
    "python.md": arrive(*ALL),
    "standing-move.md": arrive_and_are_awaited(*ALL),
    "verify.md": arrive(*ALL),
    "who-put-this-file.md": arrive(*ALL),
}
"""What is to be seen at `nas` when a page was followed to its end."""


@pytest.fixture
def world() -> Iterator[World]:
    """The machines of a page, in a folder whose name is short enough for a socket."""
    world = World(Path(tempfile.mkdtemp(prefix="howto")))
    try:
        world.begin()
        yield world
    finally:
        world.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_does_what_it_says(page: Path, world: World) -> None:
    """Its commands end as they should, say what it shows, and the files are where it says."""
    text = page.read_text()

    assert world.run(text) or "```console" not in text
    RESULTS.get(page.name, do_not_hurt)(world)


def test_the_lists_to_verify_by_are_equal_however_often_a_name_was_delivered(world: World) -> None:
    """Of each name the list from the manifest has what came last, and files with names like partials are in both."""
    text = (FOLDER / "verify.md").read_text()
    moving, listed, there = (
        line
        for block in re.findall(r"^```console\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
        for _, line, _ in commands(block)
    )
    camera, nas = world.machine("camera"), world.machine("nas")
    for content in ("new", "newer"):
        for name in ("a.jpg", ".b.realize-0123456789abcdef.part"):
            (camera.root / "srv/camera" / name).write_text(content)
        camera.shell(camera.here(moving.replace("realize ", "realize --on-conflict replace ")), 0)

    from_manifest = camera.shell(camera.here(listed), 0)

    assert "part" in from_manifest
    assert from_manifest == nas.shell(nas.here(there), 0)


def test_cron_is_told_of_moves_that_fail(world: World) -> None:
    """By the line of the page about monitoring, which says nothing while all is well."""
    [line] = re.findall(r"^nas# (realize moves .+)$", (FOLDER / "monitoring.md").read_text(), flags=re.MULTILINE)
    camera, nas = world.machine("camera"), world.machine("nas")
    moves = [
        f'[moves.{name}]\nfrom = ["/srv/camera"]\nto = "{to}"\nwhen = "every 1h"\n'
        for name, to in (("local", "/srv/inbox"), ("photos", "nas::inbox"))
    ]
    camera.write("/etc/realize/realized.toml", "\n".join(moves))
    nas.stop()
    camera.systemctl("restart")
    camera.shell("realize moves run photos", 0)
    wait_for(lambda: camera.shell(line, 0))

    assert re.fullmatch("photos: .+ cannot be reached: Connection refused\n", camera.shell(line, 0))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_is_short(page: Path) -> None:
    """Under 300 words beside its blocks."""
    words = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL).split()

    assert len(words) < 300 or page.name in TABLES


@pytest.mark.parametrize("name", sorted(TABLES))
def test_options_beside_those_of_others_exist(name: str) -> None:
    """What a table names as ours."""
    given = [row[1] for row in rows((FOLDER / name).read_text())]
    named = {each for cell in given for each in re.findall(r"--[a-z][a-z0-9-]+", cell)}

    assert len(named) > 15
    assert not unknown_words("realize", ["move", *sorted(named)])


def test_the_list_has_all_pages() -> None:
    """Once each, behind what somebody wants."""
    assert sorted(re.findall(r"^\| .+ \| \[.+\]\(([\w-]+\.md)\) \|$", LIST.read_text(), flags=re.MULTILINE)) == [
        page.name for page in PAGES
    ]


def test_tables_of_a_page_take_the_place_of_former_ones() -> None:
    """As somebody would edit the file; others stay."""
    former = 'key = "a"\nlisten = []\n[peers.a]\nkey = "1"\n[peers.b]\nkey = "2"\n'

    assert 'listen = []\nkey = "b"\n[peers.a]\nkey = "3"\n[peers.b]\nkey = "2"\n' == merged(
        former, 'key = "b"\n[peers.a]\nkey = "3"\n'
    )
