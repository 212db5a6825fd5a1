"""What a standing move is to do, from its configuration: `realize.moves.plan`."""

from __future__ import annotations

import pytest

from realize.config import Config, MoveConfig, PeerConfig
from realize.errors import ConfigError
from realize.keys import generate_identity
from realize.locations import LocalLocation, RemoteLocation
from realize.moves.plan import Plan, plans_of
from realize.schedule.when import Every, Settled
from realize.values import OnConflict, Order, Preserve

PEERS = {"nas": PeerConfig(generate_identity().public_key, "nas.example")}


def plan_of(source: str | tuple[str, ...] = "/a", destination: str = "nas::inbox", **more: object) -> Plan:
    """The plan of a move of that configuration."""
    sources = (source,) if isinstance(source, str) else source
    move = MoveConfig(sources=sources, destination=destination, **more)  # type: ignore[arg-type]
    return plans_of(Config(key=generate_identity(), peers=PEERS, moves={"cam": move}))["cam"]


def problems(source: str | tuple[str, ...] = "/a", destination: str = "nas::inbox", **more: object) -> list[str]:
    """The lines of the error that such a configuration causes."""
    with pytest.raises(ConfigError) as caught:
        plan_of(source, destination, **more)
    return str(caught.value).splitlines()


def test_a_plan_has_everything_parsed() -> None:
    """Locations, what is selected, and when; what settles needs no age besides."""
    plan = plan_of(("/a", "/b"), exclude=("*.tmp",), on_conflict=OnConflict.FAIL, settle_s=3.0)

    assert (LocalLocation("/a"), LocalLocation("/b")) == plan.locations[:2]
    assert isinstance(plan.locations[2], RemoteLocation)
    assert Settled() == plan.when
    assert (OnConflict.FAIL, 0.0, False) == (plan.options.on_conflict, plan.options.min_age_s, plan.options.retry)
    selection = plan.options.transfer(remove=True).selection
    assert (True, False) == (selection.accepts_path(b"a.jpg"), selection.accepts_path(b"a.tmp"))


def test_a_program_gives_limits_as_numbers_too() -> None:
    """Bytes per second, as everywhere else in a configuration that is made from values."""
    options = plan_of(throttle=1_000_000, throttle_up=1_000).options

    assert (1_000, 1_000_000) == (options.up_bps, options.down_bps)


def test_what_is_excluded_stays_even_if_it_is_included() -> None:
    """And where something is included, nothing else is moved."""
    selection = plan_of(include=("*.jpg",), exclude=("tmp/",)).options.transfer(remove=True).selection

    taken = [path for path in (b"a.jpg", b"a.txt", b"tmp/a.jpg") if selection.accepts_path(path)]
    assert [b"a.jpg"] == taken


def test_filters_count_in_their_order() -> None:
    """As on the command line: the last one that matches decides, and if the first one is an include, the rest stays."""
    paths = (b"a", b"cache/a", b"cache/keep")
    rules = [("exclude", "cache/"), ("include", "cache/keep")]
    chosen = []
    for filters in (rules, rules[::-1], rules[1:]):
        selection = plan_of(filters=filters).options.transfer(remove=True).selection
        chosen.append([path for path in paths if selection.accepts_path(path)])

    assert [[b"a", b"cache/keep"], [], [b"cache/keep"]] == chosen


def test_by_the_clock_files_must_be_unchanged_for_as_long() -> None:
    """They are not watched, so their age decides."""
    plan = plan_of("nas::outbox", "/b", when="every 10m", settle_s=3.0)

    assert Every(600.0) == plan.when
    assert 3.0 == plan.options.min_age_s


def test_sizes_are_those_of_the_configuration() -> None:
    """A move takes no file that is smaller or larger."""
    selection = plan_of(min_size_bytes=2, max_size_bytes=3).options.transfer(remove=True).selection

    assert [2, 3] == [size for size in range(6) if selection.accepts_size(size)]


def test_files_that_settle_have_no_order() -> None:
    """They go as they settle; runs by the clock have one."""
    assert [
        'moves.cam.order: files go as they settle; expected a move by the clock, such as when = "every 10m"'
    ] == problems(order=Order.NEWEST)
    assert Order.NEWEST is plan_of(when="every 10m", order=Order.NEWEST).options.order


def test_what_settles_has_no_limit_of_what_it_sends() -> None:
    """A limit is for each run, and what settles has one whenever a file comes."""
    assert ['moves.cam.max_transfer: is for a move by the clock, such as when = "every 1d"'] == problems(
        max_transfer_bytes=5
    )
    assert plan_of(when="every 1d", max_transfer_bytes=5).options.max_transfer_bytes == 5


def test_hard_links_are_kept_by_the_clock():
    """As files settle they go one by one, so that a file may have gone before its next name comes."""
    [problem] = problems(preserve=set(Preserve))

    assert problem.startswith("moves.cam.preserve: files go one by one as they settle")
    assert Preserve.HARDLINKS in plan_of(when="every 1h", preserve=set(Preserve)).options.preserve


def test_jitter_is_a_part_of_the_interval_and_the_same_each_time() -> None:
    """Unless the configuration gives it; another machine has another one."""
    plan = plan_of("nas::outbox", "/b", when="every 10m")
    delays = {plan.jitter_s(bytes([seed])) for seed in range(20)}

    assert plan.jitter_s(b"1") == plan.jitter_s(b"1")
    assert len(delays) == 20
    assert all(0.0 <= delay < 60.0 for delay in delays)
    assert plan_of("nas::outbox", "/b", when="every 10m", jitter_s=0.0).jitter_s(b"1") == 0.0


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"source": "tape::a"}, "moves.cam.from[0]: tape is not a peer of this configuration; expected a table "),
        ({"source": ("/a", "nas::")}, "moves.cam.from[1]: 'nas::' names no directory: "),
        ({"destination": "nas:inbox"}, "moves.cam.to: 'nas:inbox' is not a location: "),
        ({"when": "often"}, "moves.cam.when: "),
        ({"source": "nas::outbox", "destination": "/b"}, "moves.cam.when: files of a peer cannot be watched; "),
        ({"jobs": 99}, "moves.cam.jobs: expected a number from 1 to 32"),
        ({"exclude": ("*.tmp", "../x")}, "moves.cam.exclude[1]: pattern '../x' matches nothing; "),
        (
            {"filters": (("exclude", "*.tmp"), ("include", "../x"))},
            "moves.cam.filters: pattern '../x' matches nothing; ",
        ),
        ({"jobs": True}, "moves.cam.jobs: expected a number from 1 to 32"),
        ({"include": ("/",)}, "moves.cam.include[0]: pattern '/' matches nothing; "),
        ({"destination": "/b", "throttle": "1M"}, "moves.cam.throttle: limits are for connections, and here both "),
        ({"destination": "/b", "throttle_up": "1M"}, "moves.cam.throttle_up: limits are for connections, and here "),
        ({"throttle": "fast"}, "moves.cam.throttle: "),
        ({"throttle_up": "25:00,1M"}, "moves.cam.throttle_up: "),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], line: str) -> None:
    """With one line that says where and what was expected."""
    [found] = problems(**given)  # type: ignore[arg-type]

    assert found.startswith(line)


def test_no_two_moves_write_to_one_manifest() -> None:
    """The one that comes second could not run while the first one does."""
    move = MoveConfig(sources=("/a",), destination="nas::inbox", manifest="/m.jsonl")
    with pytest.raises(ConfigError, match=r"^moves\.b\.manifest: the same file as that of moves\.a"):
        plans_of(Config(key=generate_identity(), peers=PEERS, moves={"a": move, "b": move}))


def test_all_problems_are_told_together() -> None:
    """Of all moves."""
    bad = MoveConfig(sources=("tape::a",), destination="nas:inbox")
    with pytest.raises(ConfigError) as caught:
        plans_of(Config(key=generate_identity(), peers=PEERS, moves={"a": bad, "b": bad}))

    assert 4 == len(str(caught.value).splitlines())
