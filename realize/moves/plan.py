"""What a standing move is to do, from its configuration: locations, options, and when; finds all that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import evolve, frozen

from realize.by_value import ByValue
from realize.config import Config, MoveConfig, PeerConfig
from realize.config.problems import config_error
from realize.errors import ConfigError, Problem, RealizeError
from realize.keys import PublicKey
from realize.locations import LocalLocation, Location, parse_location
from realize.mover.filters import selection
from realize.runs.move_options import MAX_JOBS, MoveOptions
from realize.schedule.jitter import jitter
from realize.schedule.timetable import RateTimetable, parse_timetable
from realize.schedule.when import Calendar, Every, Settled, parse_when
from realize.values import Preserve

MAX_JITTER_S: Final = 60.0
"""The most that runs by the clock are spread over unless a move says otherwise."""

_RATES: Final = ("throttle", "throttle_up", "throttle_down")


@frozen(kw_only=True, eq=False, repr=False)
class Plan(ByValue):
    """One standing move; ``texts`` are its locations as configured, the destination last."""

    name: str
    config: MoveConfig
    texts: tuple[str, ...]
    locations: tuple[Location, ...]
    options: MoveOptions
    when: Every | Calendar | Settled
    pins: frozenset[tuple[str, PublicKey]] = frozenset()
    """The keys that are accepted of each peer at its locations, with the name of the peer."""

    def jitter_s(self, seed: bytes) -> float:
        """How much later than others, in seconds, the machine of that seed runs it by the clock."""
        spread_s = self.config.jitter_s
        if spread_s is None:
            spread_s = min(self.when.seconds / 10, MAX_JITTER_S) if isinstance(self.when, Every) else MAX_JITTER_S
        return jitter(self.name, seed, spread_s)


def plans_of(config: Config) -> dict[str, Plan]:
    """The plans of all standing moves, by name; raises `ConfigError` with one line for each problem."""
    plans: dict[str, Plan] = {}
    problems: list[Problem] = []
    for name, move in config.moves.items():
        try:
            plans[name] = plan_of(name, move, config.peers)
        except ConfigError as error:
            problems += [(("moves", name, *path), sentence) for path, sentence in error.problems]
    writers: dict[str, str] = {}
    for name, move in config.moves.items():
        if move.manifest is not None and (other := writers.setdefault(move.manifest, name)) != name:
            problems.append(
                (("moves", name, "manifest"), f"the same file as that of moves.{other}; expected one of its own")
            )
    if problems:
        raise config_error(*problems)
    return plans


def plan_of(name: str, move: MoveConfig, peers: Mapping[str, PeerConfig]) -> Plan:
    """The plan of one; raises `ConfigError`, whose problems are below its table."""
    problems: list[Problem] = []
    texts = (*move.sources, move.destination)
    keys: list[tuple[str | int, ...]] = [("from", number) for number in range(len(move.sources))]
    locations: list[Location] = []
    for key, text in zip([*keys, ("to",)], texts, strict=True):
        try:
            locations.append(_location(text, peers))
        except RealizeError as error:
            problems.append((key, str(error)))
    when: Every | Calendar | Settled | None = None
    options: MoveOptions | None = None
    try:
        when = parse_when(move.when)
    except RealizeError as error:
        problems.append((("when",), str(error)))
    rates: dict[str, RateTimetable] = {}
    for name_of_rate in _RATES:
        text = getattr(move, name_of_rate)
        try:
            rates[name_of_rate] = RateTimetable() if text is None else parse_timetable(text)
        except RealizeError as error:
            problems.append(((name_of_rate,), str(error)))
    problems += _unfit(move)
    if not problems:
        options = _options(move, settles=isinstance(when, Settled))
    if not problems:
        problems += _contradictions(move, locations, settles=isinstance(when, Settled))
    if problems or when is None or options is None:
        raise config_error(*problems)
    options = evolve(
        options,
        up_bps=rates["throttle" if move.throttle_up is None else "throttle_up"],
        down_bps=rates["throttle" if move.throttle_down is None else "throttle_down"],
    )
    return Plan(
        name=name,
        config=move,
        texts=texts,
        locations=tuple(locations),
        options=options,
        when=when,
        pins=frozenset(_pins(locations, peers)),
    )


def _location(text: str, peers: Mapping[str, PeerConfig]) -> Location:
    location = parse_location(text, peers)
    if not isinstance(location, LocalLocation) and location.peer is None:
        raise ConfigError(f"{location.host} is not a peer of this configuration; expected a table peers.NAME for it")
    return location


def _pins(locations: Sequence[Location], peers: Mapping[str, PeerConfig]) -> Iterator[tuple[str, PublicKey]]:
    for location in locations:
        if not isinstance(location, LocalLocation) and location.peer is not None:
            yield from ((location.peer, key) for key in peers[location.peer].pins)


def _options(move: MoveConfig, *, settles: bool) -> MoveOptions:
    included, excluded = (("include", each) for each in move.include), (("exclude", each) for each in move.exclude)
    return MoveOptions(
        on_conflict=move.on_conflict,
        backup_dir=move.backup_dir,
        preserve=move.preserve,
        numeric_ids=move.numeric_ids,
        best_effort=move.best_effort,
        links=move.links,
        compress=move.compress,
        jobs=move.jobs,
        rules=move.filters or (*included, *excluded),
        min_age_s=0.0 if settles else move.settle_s,
        min_size_bytes=move.min_size_bytes,
        max_size_bytes=move.max_size_bytes,
        one_file_system=move.one_file_system,
        order=move.order,
        max_transfer_bytes=move.max_transfer_bytes,
        prune_age_s=move.prune_age_s,
        max_duration_s=move.max_duration_s,
        grace_s=move.grace_s,
        retry=False,
        manifest=move.manifest,
        trust_source=move.trust_source,
    )


def _unfit(move: MoveConfig) -> Iterator[Problem]:
    """What `MoveOptions` would refuse, with the key that it is at."""
    if type(move.jobs) is not int or not 1 <= move.jobs <= MAX_JOBS:
        yield ("jobs",), f"expected a number from 1 to {MAX_JOBS}"
    for verb, patterns in (("include", move.include), ("exclude", move.exclude)):
        for number, pattern in enumerate(patterns):
            try:
                selection([(verb, pattern)])
            except RealizeError as error:
                yield (verb, number), str(error)
    for rule in move.filters:
        try:
            selection([rule])
        except RealizeError as error:
            # Its number in the array is unknown: a file of patterns has several.
            yield ("filters",), str(error)


def _contradictions(move: MoveConfig, locations: list[Location], *, settles: bool) -> Iterator[Problem]:
    local = [isinstance(location, LocalLocation) for location in locations]
    if settles and not all(local[:-1]):
        yield ("when",), 'files of a peer cannot be watched; expected an interval such as "every 10m"'
    if settles and move.order is not None:
        yield ("order",), 'files go as they settle; expected a move by the clock, such as when = "every 10m"'
    if settles and move.max_transfer_bytes is not None:
        yield ("max_transfer",), 'is for a move by the clock, such as when = "every 1d"'
    if settles and Preserve.HARDLINKS in move.preserve:
        why = "files go one by one as they settle, so hard links cannot be kept"
        yield ("preserve",), f'{why}; expected no hardlinks, or a move by the clock, such as when = "every 1h"'
    for name in _RATES if all(local) else ():
        if getattr(move, name) is not None:
            yield (name,), "limits are for connections, and here both ends are local"
