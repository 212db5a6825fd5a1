"""Values of a configuration, from what TOML or a program gives; each raises an error that says what was expected."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from realize.config.addresses import DEFAULT_PORT, metrics_endpoint, parse_address, server_endpoint
from realize.config.problems import SeveralProblems, problems_below
from realize.errors import Problem, RealizeError, UsageError
from realize.keys import MAX_KEYS, PublicKey, parse_public_key
from realize.levels import Levels, parse_levels
from realize.schedule.timetable import RateByTime, RateTimetable, parse_rate_by_time
from realize.units import (
    Reserve,
    parse_duration,
    parse_rate,
    parse_reserve,
    parse_size,
    quoted,
)
from realize.values import (
    EXTRAS,
    MAX_COMPONENT_BYTES,
    MAX_NAME_CHARS,
    Compress,
    Links,
    Order,
    Preserve,
    preserving,
)

T = TypeVar("T")
_Words = TypeVar("_Words", Compress, Links, Order)

MIN_MEMORY_BYTES: Final = 16 << 20
"""The smallest memory limit for peers that is accepted; with less, even a single large file would be slow."""

MAX_BACKUP_DIR_CHARS: Final = 1000
"""Length of the path of a directory for backups at most; what is kept there needs names of its own below it."""

NAME_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What the name of a directory, a peer or a move must match as a whole."""


def absolute(path: str) -> str:
    """The path from the root; a relative one starts at the working directory."""
    # Not os.path.abspath, which removes LINK/.. and so changes the path if LINK is a symlink.
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def given_path(path: str | os.PathLike[str]) -> str:
    """The absolute path; what is no path stays as it is, and the checks refuse it."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    return absolute(text) if isinstance(text, str) and text and "\0" not in text else text


def given_file(path: str | os.PathLike[str] | None) -> str | None:
    """The same for one that may be missing."""
    return None if path is None else given_path(path)


def unexpected(what: str, value: object) -> UsageError:
    """The error for a value of another type than ``what`` says."""
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "an array", dict: "a table"}
    other = "a date or time" if isinstance(value, dt.date | dt.time) else f"of type {type(value).__name__}"
    return UsageError(f"expected {what}, not {names.get(type(value), other)}")


def instance_of(cls: type[T]) -> Callable[[object], T]:
    """The check that a value, which no file has, is of a class."""

    def check(value: object) -> T:
        if not isinstance(value, cls):
            raise unexpected(f"of type {cls.__name__}", value)
        return value

    return check


def as_table(value: object) -> Mapping[str, object]:
    """A table of TOML."""
    if not isinstance(value, Mapping):
        raise unexpected("a table", value)
    return value


def as_string(value: object, what: str = "a string") -> str:
    """A string; ``what`` says for people what it is."""
    if not isinstance(value, str):
        raise unexpected(what, value)
    return value


def as_path(value: object) -> str:
    """A path, not yet absolute."""
    path = as_string(value, "a path")
    if not path or "\0" in path:
        raise UsageError("expected a path")
    return path


def as_backup_dir(value: object) -> str:
    """The path of a directory inside another one, relative to that."""
    path = as_path(value)
    components = path.split("/")
    long = len(path) > MAX_BACKUP_DIR_CHARS or any(len(os.fsencode(each)) > MAX_COMPONENT_BYTES for each in components)
    if long or any(each in {"", ".", ".."} for each in components):
        raise UsageError("expected a path inside the directory, and relative to it, such as .backup")
    return path


def as_boolean(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise unexpected("true or false", value)
    return value


def _number_or_string(value: object, what: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return as_string(value, what)


def as_rate_by_time(value: object) -> RateByTime:
    """Bytes per second, or a timetable of such; None is unlimited."""
    return parse_rate_by_time(as_rate_text(value))


def as_reserve(value: object) -> Reserve:
    """The space to leave free."""
    return parse_reserve(_number_or_string(value, 'a size or a percentage such as "10G" or "5%"'))


def as_memory(value: object) -> int:
    """A number of bytes, at least `MIN_MEMORY_BYTES`."""
    expected = f"a size of at least {MIN_MEMORY_BYTES >> 20}M"
    size = parse_size(_number_or_string(value, f'{expected}, such as "128M"'))
    if size < MIN_MEMORY_BYTES:
        raise UsageError(f"expected {expected}")
    return size


def as_size(value: object) -> int:
    """A number of bytes, or none."""
    return parse_size(_number_or_string(value, 'a size such as "1.5M"'))


def check_size_value(value: object) -> None:
    """Refuse what is no number of bytes."""
    if type(value) is not int:
        raise unexpected("a number of bytes", value)
    as_size(value)


def as_duration(value: object) -> float:
    """Seconds, more than none."""
    return parse_duration(_number_or_string(value, 'a duration such as "7d"'))


def as_duration_or_zero(value: object) -> float:
    """Seconds, or none."""
    return parse_duration(_number_or_string(value, 'a duration such as "10s"'), zero_allowed=True)


def check_rate_value(value: object) -> None:
    """Refuse what is no rate in bytes per second, no timetable of such, and not None."""
    for rate in value.rates if isinstance(value, RateTimetable) else (value,):
        if rate is not None and type(rate) is not int:
            raise unexpected("bytes per second, a timetable, or None", rate)
        if rate is not None:
            parse_rate(str(rate))


def check_memory_value(value: object) -> None:
    """Refuse what is no number of bytes, or too small a one."""
    if type(value) is not int:
        raise unexpected("a number of bytes", value)
    as_memory(value)


def check_seconds(value: object, *, zero_allowed: bool = False) -> None:
    """Refuse what is no number of seconds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise unexpected("a number of seconds", value)
    try:
        text = f"{value:.9f}"
    except OverflowError:
        raise UsageError("expected a number of seconds that is not so large") from None
    parse_duration(text, zero_allowed=zero_allowed)


def check_levels(value: object) -> None:
    """Refuse levels that no log knows."""
    levels = instance_of(Levels)(value)
    parse_levels(",".join([levels.default, *(f"{name}={level}" for name, level in levels.components.items())]))


def as_log_levels(value: object) -> Levels:
    """The levels of the log and of its components."""
    return parse_levels(as_string(value, 'a level such as "info" or "info,wire=debug"'))


def as_public_key(value: object) -> PublicKey:
    """A public key in its text form."""
    return parse_public_key(as_string(value, "a public key"))


def as_public_keys(value: object) -> tuple[PublicKey, ...]:
    """Public keys in their text form."""
    return each_of(value, "an array of public keys", as_public_key)


def as_former_keys(value: object, convert: Callable[[object], T]) -> tuple[T, ...]:
    """Our former keys, each converted: not more than may be there beside the current one."""
    keys = each_of(value, "an array of paths", convert)
    if len(keys) >= MAX_KEYS:
        raise UsageError(f"expected at most {MAX_KEYS - 1} former keys")
    return keys


def check_keys(value: object) -> None:
    """Refuse what is no tuple of public keys, or none, too many, or the same twice."""
    keys = each_of(value, "an array of public keys", instance_of(PublicKey))
    if not keys:
        raise UsageError("expected at least one public key")
    if len(keys) > MAX_KEYS:
        raise UsageError(f"{len(keys)} keys are too many; expected at most {MAX_KEYS}")
    for index, key in enumerate(keys):
        if key in keys[:index]:
            raise SeveralProblems([((index,), f"the same key as that of [{keys.index(key)}]; expected each key once")])


def as_address(value: object) -> str:
    """The address of a peer, as text."""
    address = as_string(value, "an address such as host:9771")
    parse_address(address)
    return address


def _endpoint(value: object) -> str:
    return server_endpoint(as_string(value, "HOST:PORT or a Twisted server endpoint string"))


def as_metrics(value: object) -> str:
    """The endpoint string for metrics."""
    return metrics_endpoint(_number_or_string(value, "HOST:PORT, PORT or a Twisted server endpoint string"))


def as_endpoints(value: object) -> tuple[str, ...]:
    """The endpoint strings to listen on."""
    return each_of(value, f'an array of strings such as ["*:{DEFAULT_PORT}"]', _endpoint)


def each_of(value: object, what: str, convert: Callable[[object], T]) -> tuple[T, ...]:
    """The values of an array, each converted; ``what`` says for people what it is."""
    if not isinstance(value, list | tuple):
        raise unexpected(what, value)
    converted: list[T] = []
    problems: list[Problem] = []
    for index, item in enumerate(value):
        try:
            converted.append(convert(item))
        except RealizeError as error:
            problems.extend(problems_below(index, error))
    if problems:
        raise SeveralProblems(problems)
    return tuple(converted)


def choice(*choices: str) -> Callable[[object], str]:
    """The check for one of a few words."""

    def convert(value: object) -> str:
        expected = f"one of {', '.join(choices)}"
        text = as_string(value, expected)
        if text not in choices:
            raise UsageError(f"{quoted(text)} is not known; expected {expected}")
        return text

    return convert


def word_of(kind: type[_Words]) -> Callable[[object], _Words]:
    """The converter of the value of one of the members of ``kind``, which are words."""
    word = choice(*(each.value for each in kind))
    return lambda value: kind(word(value))


def named(what: str, convert: Callable[[object], T]) -> Callable[[object], dict[str, T]]:
    """The converter of a table whose keys are names chosen by the administrator."""

    def convert_table(value: object) -> dict[str, T]:
        converted: dict[str, T] = {}
        problems: list[Problem] = []
        for name, item in as_table(value).items():
            if not isinstance(name, str):
                problems.append(((), str(unexpected(f"a string as the name of a {what}", name))))
                continue
            if not NAME_FORM.fullmatch(name) or len(name) > MAX_NAME_CHARS:
                expected = f"at most {MAX_NAME_CHARS} letters, digits, '.', '_' and '-', a letter or digit first"
                problems.append(((name,), f"not a name for a {what}; expected {expected}"))
            try:
                converted[name] = convert(item)
            except (RealizeError, SeveralProblems) as error:
                problems.extend(problems_below(name, error))
        if problems:
            raise SeveralProblems(problems)
        return converted

    return convert_table


def as_texts(value: object) -> tuple[str, ...]:
    """Texts that are not empty, from an array of them."""
    if not isinstance(value, list | tuple):
        raise unexpected("an array of strings", value)
    problems: list[Problem] = []
    for index, item in enumerate(value):
        try:
            as_path(item)
        except RealizeError:
            problems.append(((index,), "expected a string that is not empty"))
    if problems:
        raise SeveralProblems(problems)
    return tuple(value)


def check_rules(rules: object) -> None:
    """Raise for what is no sequence of filter rules, ``("include" | "exclude", pattern)``."""
    if not isinstance(rules, list | tuple):
        raise unexpected("a list of pairs", rules)
    for each in rules:
        if not isinstance(each, list | tuple) or len(each) != 2 or each[0] not in {"include", "exclude"}:
            raise UsageError('expected pairs such as ("exclude", "*.tmp")')
        as_string(each[1], "a pattern")


def as_rate_text(value: object) -> str:
    """A rate, or a timetable of rates, as text."""
    return _number_or_string(value, 'a rate such as "20M", or a timetable such as "08:00,512k 18:00,unlimited"')


def as_preserve(value: object) -> frozenset[Preserve]:
    """What is carried over besides the content, from an array of names, or whether the usual is."""
    if isinstance(value, bool):
        return preserving(value)
    # Only some configurations have such a list.
    from realize.preserving import NAMES, preserved

    def convert(item: object) -> str:
        name = as_string(item)
        preserved([name])
        return name

    names = each_of(value, f"true, false, or an array of {', '.join(NAMES)}", convert)
    return preserved(names) if names else frozenset()


def check_preserve(value: object) -> None:
    """Raise for what is no set of `Preserve`, which no file has."""
    if not isinstance(value, frozenset) or not all(isinstance(each, Preserve) for each in value):
        raise unexpected("a set of Preserve", value)


def as_accept(value: object) -> frozenset[Preserve]:
    """What peers may set beside permission bits and times, from an array of names."""
    known = {each.value: each for each in Preserve if each in EXTRAS}

    def convert(item: object) -> Preserve:
        if not isinstance(item, str) or item not in known:
            raise UsageError(f"expected one of {', '.join(known)}")
        return known[item]

    return frozenset(each_of(value, f"an array of {', '.join(known)}", convert))


def check_accept(value: object) -> None:
    """Raise for what is no set of `realize.values.EXTRAS`, which no file has."""
    if not isinstance(value, frozenset) or not value <= EXTRAS:
        raise unexpected("a set of Preserve.OWNER, Preserve.ACL and Preserve.XATTR", value)
