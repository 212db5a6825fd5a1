"""What docs/protocol.md shows is what our code does: boxes, chunks, a certificate, and what paths mean."""

import contextlib
import hashlib
import re
import shlex
import ssl
import subprocess
from types import SimpleNamespace

import pytest
from blake3 import blake3
from OpenSSL import SSL
from pyfastcdc.py.constants import MASKS
from twisted.internet.defer import Deferred

from realize.errors import NotFound
from realize.keys import generate_identity, parse_public_key, spki_of_certificate
from realize.store.deltas import cut
from realize.store.local.store import LocalStore, root_identity
from realize.values import NOTHING, Directory, Fetched, OnConflict, WhereKind
from realize.wire import commands
from realize.wire.boxes import BoxParser, DataBox, data_head, data_tail, encode
from realize.wire.greeting import Greeting
from realize.wire.key_hints import wanted
from realize.wire.tls import AcceptingTLS
from tests.local_stores import at_once
from tests.pages import page, rows, section
from tests.store_helpers import small_file
from tests.test_hostile_peer import Evil

PAGE = page("protocol.md")


def boxes_of_the_page():
    """The boxes in hex, without what is said of their lines."""
    shown = re.findall(r"\n\n((?:    (?:[0-9a-f]{2,} *)+(?:#.*)?\n)+)", PAGE)
    return [bytes.fromhex("".join(line.partition("#")[0] for line in each.splitlines())) for each in shown]


def test_the_boxes_of_the_page_are_those_that_we_send():
    """Byte for byte, so that an encoder can be tried with them."""
    hello = commands.Hello.makeArguments(Greeting("client", ("deltas",)).as_arguments(), None)

    assert [
        data_head(5) + b"hello" + data_tail(1),
        encode({b"_command": b"Hello", b"_ask": b"1", **hello}),
    ] == boxes_of_the_page()


def test_the_boxes_of_the_page_say_what_stands_beside_them():
    """They are parsed as any others."""
    parsed = [next(iter(BoxParser().feed(box))) for box in boxes_of_the_page()]

    assert DataBox(1, b"hello") == parsed[0]
    assert commands.Hello.parseArguments(parsed[1], None)["capabilities"] == ["deltas"]


def test_the_content_of_the_page_is_cut_as_it_says():
    """The test vector of content-defined chunking."""
    content = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(1600))
    table = PAGE.partition("into these chunks")[2].partition("### Comparisons")[0]
    told = [(int(length.replace(",", "")), bytes.fromhex(digest)) for length, digest in rows(table)]

    assert told == cut(content)
    assert blake3(content).hexdigest() in PAGE
    assert f"{len(content):,}" in PAGE


def test_the_masks_of_the_page_are_those_that_are_used():
    """For an average of 2^13 bytes and normalization 3."""
    assert re.search(rf"0x{MASKS[16]:016x} up to the average and\s+0x{MASKS[10]:016x}", PAGE)


def shaken(client, server):
    """Shake hands in memory; what either side fails with is raised."""
    done = set()
    while len(done) < 2:
        for name, act in (("client", client["tls"].do_handshake), ("server", server.do_handshake)):
            try:
                act()
                done.add(name)
            except (SSL.WantReadError, ssl.SSLWantReadError):
                pass
            if client["out"].pending:
                server.bio_write(client["out"].read())
            with contextlib.suppress(SSL.WantReadError):
                client["in"].write(server.bio_read(1 << 16))


def test_the_certificate_of_the_page_lets_a_client_in(tmp_path):
    """Its commands are run, and its key is the one that the accepting side sees."""
    made = re.findall(r"^ +(openssl (?:genpkey|req) .*)$", section(PAGE, "Layers"), flags=re.MULTILINE)
    for command in made:
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True)
    [shown] = re.findall(r"`(openssl pkey .*?)`", PAGE)
    told = subprocess.run(shlex.split(shown), cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = {"tls": context.wrap_bio(incoming, outgoing), "in": incoming, "out": outgoing}
    asked = []
    accepting = AcceptingTLS([generate_identity()], lambda key: not asked.append(key), lambda *_: None)
    server = accepting.serverConnectionForTLS(SimpleNamespace(factory=SimpleNamespace(wrappedFactory=None)))
    server.set_accept_state()
    shaken(client, server)

    assert 2 == len(made)
    assert {parse_public_key(told)} == set(asked)
    assert spki_of_certificate(server.get_peer_certificate().to_cryptography()) == parse_public_key(told)


def test_the_tag_of_the_page_is_that_of_its_key():
    """Whoever writes another implementation can check theirs with it."""
    [key, tag] = re.findall(r"`(MCowBQYDK2VwAyEA\S+)` is `([0-9a-f]{12})`", PAGE)[0]

    assert 1 == wanted(
        b"k" + b"0" * 12 + 4 * tag.encode() + b".invalid", [generate_identity().public_key, parse_public_key(key)]
    )


@pytest.fixture
def opened(tmp_path):
    """What a base below a directory with one file is, and the store for it."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"12345")

    def opened(base):
        store = LocalStore(str(tmp_path), base, run_in_thread=at_once, root_identity=root_identity(str(tmp_path)))
        return outcome(store.open(b"salt", 0)), store

    return opened


def outcome(waiting):
    """What a Deferred has come to; an error is returned."""
    found = []
    waiting.addBoth(found.append)
    return getattr(found[0], "value", found[0])


def test_a_base_that_is_a_file_has_one_path(opened):
    """Its last component, under which it is listed."""
    where, store = opened(b"d/f")
    above, _ = opened(b"d")
    page = outcome(store.walk(partials=True, avoid=b"", leave=()).next_page())
    read = outcome(store.read_small([b"f", b"d/f", b"other"], removing=False))

    assert WhereKind.FILE is where.kind
    assert above.identities == where.identities[1:]
    assert [b"f"] == [entry.path for entry in page]
    assert [Fetched, NotFound, NotFound] == [type(each) for each in read]


def test_a_base_that_is_absent_is_made_when_something_is_put_there(opened, tmp_path):
    """Before that, a listing finds nothing to list; the identities are those of what is above."""
    where, store = opened(b"d/new/deep")
    above, _ = opened(b"d")
    listed = outcome(store.walk(partials=True, avoid=b"", leave=()).next_page())
    described = outcome(store.describe([b"f"]))
    outcome(store.put_small([small_file(b"f", b"123")], OnConflict.FAIL))

    assert WhereKind.ABSENT is where.kind
    assert above.identities == where.identities
    assert NotFound is type(listed)
    assert [NOTHING] == described
    assert b"123" == (tmp_path / "d" / "new" / "deep" / "f").read_bytes()


def test_an_empty_path_makes_the_location(opened, tmp_path):
    """And nothing below it."""
    _, store = opened(b"d/new")
    made = outcome(store.make_directories([Directory(b"", 0o750)]))

    assert [None] == made
    assert [] == list((tmp_path / "d" / "new").iterdir())


@pytest.mark.parametrize("command", ["Describe", "CloseDirectory"])
def test_nothing_may_be_sent_ahead_behind_the_opening_of_a_directory(command):
    """The handle is not open yet; it is, once that was answered."""
    evil = Evil().hello()
    waiting = Deferred()
    answer, evil.memory.open = evil.memory.open, lambda *_: waiting
    asked = evil.code("OpenDirectory", handle=b"1", directory=b"inbox", base=b"", salt=b"s")
    ahead = evil.code(command, handle=b"1", paths=b"")
    answer(b"s", 0).chainDeferred(waiting)
    evil.flush()
    behind = evil.code(command, handle=b"1", paths=b"")

    assert ("nothing", "PROTOCOL", "ok") == (asked, ahead, behind)
    evil.check()


def test_nothing_may_be_sent_ahead_behind_the_opening_of_a_file_to_read():
    """Its stream is not open yet, except for being closed."""
    evil = Evil().opened()
    evil.memory.open_reader = lambda *_, **__: Deferred()
    asked = evil.code("OpenRead", handle=b"1", stream=b"1", path=b"f")
    codes = [evil.code(command, stream=b"1", length=b"0") for command in ("BlockDigests", "StartRead", "CloseStream")]

    assert ("nothing", ["PROTOCOL", "PROTOCOL", "ok"]) == (asked, codes)
    evil.check()


def test_what_is_wrong_closes_the_connection_if_no_answer_is_wanted():
    """There is no other way to tell, and the log says what it was."""
    evil = Evil().opened()
    evil.send(encode({b"_command": b"Describe", b"handle": b"9", b"paths": b""}))

    assert evil.lost is not None
    assert ["handle 9 is not open"] == [line["reason"] for line in evil.log.named("protocol_violation")]
    evil.check()
