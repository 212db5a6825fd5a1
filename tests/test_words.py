"""One name, one meaning: no class or constant of two modules shares its name, and numbers say what they count."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module

import pytest

from tests.pages import ROOT

MODULES = sorted((ROOT / "realize").rglob("*.py"))
CONSTANT = re.compile(r"_*[A-Z][A-Z0-9_]*")
CLASS = re.compile(r"_*[A-Z]\w*[a-z]\w*")

ONE_MEANING = {
    "LOADED_AHEAD": "modules that are loaded ten seconds after the start",
    "FLAGS": "flags of open(2), for what the module opens",
}
"""Names that two modules have for the same thing."""


UNITS = {"S", "NS", "MS", "BYTES", "BPS", "FRACTION", "CHARS", "COLUMNS", "DIGITS", "DEPTH", "LEVEL"}
NO_COUNT = {
    "config.addresses.DEFAULT_PORT": "a number of TCP",
    "config.addresses.LISTEN_BACKLOG": "the word of listen(2) for connections that wait",
    "fs.acls._GROUP_TAG": "a number of acl(5)",
    "fs.acls._MASK_TAG": "a number of acl(5)",
    "fs.acls._OWNING_GROUP_TAG": "a number of acl(5)",
    "fs.acls._NO_ID": "a number of acl(5)",
    "fs.acls._USER_TAG": "a number of acl(5)",
    "fs.stamps._CLOCK_MONOTONIC_COARSE": "a number of clock_gettime(2)",
    "fs.stamps._CLOCK_REALTIME_COARSE": "a number of clock_gettime(2)",
    "fs.syscalls._AT_EMPTY_PATH": "a flag of statx(2)",
    "fs.syscalls._AT_STATX_FORCE_SYNC": "a flag of statx(2)",
    "fs.syscalls._AT_SYMLINK_NOFOLLOW": "a flag of statx(2)",
    "fs.syscalls._FUSE": "a number of statfs(2)",
    "fs.syscalls._F_SETSIG": "a number of fcntl(2)",
    "fs.syscalls._RENAME_NOREPLACE": "a flag of renameat2(2)",
    "fs.syscalls._RENAME_EXCHANGE": "a flag of renameat2(2)",
    "fs.syscalls._STATX_BTIME": "a flag of statx(2)",
    "fs.syscalls._SYNC_FILE_RANGE_WRITE": "a flag of sync_file_range(2)",
    "fs.syscalls._SYNC_FILE_RANGE_WRITE_AND_WAIT": "flags of sync_file_range(2)",
    "fs.syscalls._SIGURG": "a number of a signal",
    "moves.child._MFD_NOEXEC_SEAL": "a flag of memfd_create(2)",
    "numbered.MAX_NAME_NUMBER": "a number of a name",
    "process._M_ARENA_MAX": "a number of mallopt(3)",
    "process._M_MMAP_THRESHOLD": "a number of mallopt(3)",
    "process._M_TRIM_THRESHOLD": "a number of mallopt(3)",
    "store.deltas.EMPTY": "stands for an offset",
    "store.local.directories._LOOK_ANYWHERE": "a number of a capability",
    "store.local.directories._OWNERS_LOOK": "the bits of a mode",
    "store.local.partial_marks.MARK": "the bits of a mode",
    "store.local.partial_marks.RECEIVING": "the bits of a mode",
    "store.local.partials._NEW": "flags of open(2)",
    "store.local.small_files._PLAIN_MODE": "the bits of a mode",
    "telemetry.metrics.textfile.MODE": "the bits of a mode",
    "wire.arguments.MAX_INTEGER": "a number of any kind",
    "wire.costs._PARSED": "a factor",
    "wire.packing._PRESENT": "a bit of a byte",
    "wire.packing._RECENT": "a bit of a byte",
    "wire.packing._KEPT_BACKUP": "a value of the protocol",
    "wire.packing._LINKED_FILE": "a value of the protocol",
    "wire.commands.MAJOR": "a version",
    "wire.commands.MINOR": "a version",
    "wire.commands.MOVES_SINCE_MINOR": "a version",
    "wire.commands._MAX_NUMBER": "the largest number of a handle, a listing or a stream",
    "wire.frames._KIND_RESERVED": "a kind of block in Zstandard",
    "wire.frames._KIND_RLE": "a kind of block in Zstandard",
    "wire.tls._PARTIAL_WRITE": "a flag of OpenSSL",
    "wire.tls._VERIFY": "flags of OpenSSL",
    "wire.tls._TCP_NOTSENT_LOWAT": "a number of setsockopt(2)",
    "store.local.extras._CAP_CHOWN": "a flag of capabilities(7)",
    "store.local.extras._CAP_FOWNER": "a flag of capabilities(7)",
}
"""Numbers that count nothing, and what they are."""


def module_name(path):
    """As it is imported, below ``realize``."""
    return ".".join(path.relative_to(ROOT / "realize").with_suffix("").parts).removesuffix("__init__").rstrip(".")


def defined(tree: ast.Module) -> Iterator[str]:
    """Classes, types and constants that a module makes at its top; variables for types have no meaning of their own."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            made_by = node.value.func if isinstance(node.value, ast.Call) else None
            if not (isinstance(made_by, ast.Name) and made_by.id == "TypeVar"):
                yield from (each.id for each in targets if isinstance(each, ast.Name))


def names() -> dict[str, set[str]]:
    """Which modules have which name; an underscore before it makes no other one of it."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        for name in defined(ast.parse(path.read_text())):
            if CONSTANT.fullmatch(name) or CLASS.fullmatch(name):
                found.setdefault(name.lstrip("_"), set()).add(module_name(path))
    return found


def numbers() -> dict[str, int | float]:
    """Every constant whose value is a number, by its name with the module that it is in before it."""
    found = {}
    for path in MODULES:
        module = import_module(f"realize.{module_name(path)}".rstrip("."))
        for name in defined(ast.parse(path.read_text())):
            if CONSTANT.fullmatch(name) and type(value := getattr(module, name)) in {int, float}:
                found[f"{module_name(path)}.{name}"] = value
    return found


def says_what_it_counts(name: str) -> bool:
    """Whether it ends in a unit or in a plural, or has a plural before a word such as ``_PER_FILE``."""
    bare = name.rpartition(".")[2].strip("_")
    words = [each.split("_")[-1] for each in (bare, re.sub(r"_(PER|AHEAD|IN|BEFORE|AFTER|AT|OF)(_.*)?$", "", bare))]
    return any(word in UNITS or (word.endswith("S") and not word.endswith("SS")) for word in words)


def test_no_name_has_two_meanings():
    """A class or a constant of one module has no namesake in another one, but for those that are listed."""
    shared = {name: modules for name, modules in names().items() if len(modules) > 1}

    assert {} == {name: modules for name, modules in shared.items() if name not in ONE_MEANING}
    assert set() == ONE_MEANING.keys() - shared.keys(), "take these out of the lists"


def test_numbers_say_what_they_count():
    """The name of a number ends in its unit or in what is counted: ``REPLY_TIMEOUT_S``, ``MAX_BATCH_FILES``."""
    silent = {name for name in numbers() if not says_what_it_counts(name)}

    assert set() == silent - NO_COUNT.keys()
    assert set() == NO_COUNT.keys() - silent, "take these out of the lists"


def test_fractions_of_a_second_have_a_unit():
    """What is no whole number is a duration or a part of something; no list excuses it."""
    floats = {name for name, value in numbers().items() if isinstance(value, float)}

    assert floats
    assert set() == {name for name in floats if not re.search(r"_(S|BPS|BYTES|FRACTION)$", name)}


@pytest.mark.parametrize("name", ["a.REPLY_TIMEOUT_S", "a.MAX_BATCH_FILES", "a.SPANS_AHEAD", "a.BYTES_PER_FILE"])
def test_names_that_say_enough(name):
    """A unit, a plural, and a plural that something follows."""
    assert says_what_it_counts(name)


@pytest.mark.parametrize("name", ["a.WITHIN", "a.MOST", "a.LONGEST", "a.SLICE", "a._LESS"])
def test_names_that_do_not(name):
    """Words such as these have meant seconds, bytes and files."""
    assert not says_what_it_counts(name)
