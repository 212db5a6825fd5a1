"""Sources and destinations on a command line: `realize.locations`."""

from __future__ import annotations

import os
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realize.config import PeerConfig
from realize.config.addresses import DEFAULT_PORT
from realize.errors import UsageError
from realize.keys import PublicKey
from realize.locations import LocalLocation, RemoteLocation, parse_location, parse_peer
from realize.units import format_address

KEY = PublicKey(bytes.fromhex("302a300506032b6570032100") + bytes(32))
PEERS = {
    "hostb": PeerConfig(KEY, address="hostb.example:9999"),
    "v6": PeerConfig(KEY, address="[fd00::1]:1234"),
    "plain": PeerConfig(KEY, address="10.0.0.1"),
    "bare": PeerConfig(KEY),
}


@pytest.mark.parametrize(
    "text",
    [
        "/store/a",
        "./a",
        "a",
        ".",
        "./a::b",
        "/a::b",
        "a/b::c",
        "./a:b",
        "/a:b",
        "a/b:c",
        "[x]/b::c",
        "./http://hostb/inbox",
        "[1] photo.jpg",
        "[photo]",
        "-x",
        "\udcff",
    ],
)
def test_local(text):
    """A path is local, whatever is in it, if it has no `:`, or a `/` before the first one."""
    assert LocalLocation(text) == parse_location(text, PEERS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("other::inbox", RemoteLocation(None, "other", DEFAULT_PORT, "inbox", b"")),
        ("a::b", RemoteLocation(None, "a", DEFAULT_PORT, "b", b"")),
        ("other::inbox/", RemoteLocation(None, "other", DEFAULT_PORT, "inbox", b"")),
        ("other::inbox/2024", RemoteLocation(None, "other", DEFAULT_PORT, "inbox", b"2024")),
        ("other:9999::inbox", RemoteLocation(None, "other", 9999, "inbox", b"")),
        ("10.0.0.2::2024.raw", RemoteLocation(None, "10.0.0.2", DEFAULT_PORT, "2024.raw", b"")),
        ("[::1]::inbox", RemoteLocation(None, "::1", DEFAULT_PORT, "inbox", b"")),
        ("[::1]:9999::inbox/a", RemoteLocation(None, "::1", 9999, "inbox", b"a")),
        ("other::inbox//a/./b/", RemoteLocation(None, "other", DEFAULT_PORT, "inbox", b"a/b")),
        ("other::inbox/a::b:c/\n", RemoteLocation(None, "other", DEFAULT_PORT, "inbox", b"a::b:c/\n")),
        ("other::inbox/ü\udcff%20", RemoteLocation(None, "other", DEFAULT_PORT, "inbox", b"\xc3\xbc\xff%20")),
        ("realize://other/inbox", RemoteLocation(None, "other", DEFAULT_PORT, "inbox", b"")),
        ("realize://other:9771/inbox/2024", RemoteLocation(None, "other", 9771, "inbox", b"2024")),
        ("REALIZE://[::1]:9999/inbox/", RemoteLocation(None, "::1", 9999, "inbox", b"")),
        ("realize://[fe80::1%25eth0]/inbox", RemoteLocation(None, "fe80::1%eth0", DEFAULT_PORT, "inbox", b"")),
        ("realize://other/inbox/a%20b/%ff%3f::", RemoteLocation(None, "other", DEFAULT_PORT, "inbox", b"a b/\xff?::")),
    ],
)
def test_remote(text, expected):
    """A host, perhaps a port, a directory, and perhaps a path in it; in a URL the path is percent-encoded bytes."""
    assert expected == parse_location(text, PEERS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hostb", ("hostb", "hostb.example", 9999)),
        ("hostb:1", ("hostb", "hostb.example", 1)),
        ("v6", ("v6", "fd00::1", 1234)),
        ("v6:9771", ("v6", "fd00::1", 9771)),
        ("plain", ("plain", "10.0.0.1", DEFAULT_PORT)),
        ("bare", ("bare", "bare", DEFAULT_PORT)),
        ("bare:1", ("bare", "bare", 1)),
        ("other", (None, "other", DEFAULT_PORT)),
        ("hostb.example", (None, "hostb.example", DEFAULT_PORT)),
        ("[::1]:9771", (None, "::1", 9771)),
        ("[::1]", (None, "::1", DEFAULT_PORT)),
    ],
)
def test_peers(text, expected):
    """A configured peer is found at its address; a port in the text outranks that of the address."""
    located = parse_location(f"{text}::inbox", PEERS)
    linked = parse_location(f"realize://{text}/inbox", PEERS)

    assert expected == parse_peer(text, PEERS)
    assert expected == (located.peer, located.host, located.port)
    assert located == linked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "'' is not a location: write a path, or HOST::DIRECTORY"),
        ("a\0b", r"'a\x00b' is not a location"),
        ("::inbox", "'::inbox' is not a location: '' is not an address"),
        ("hostb::", "'hostb::' names no directory: write HOST::DIRECTORY"),
        ("hostb::/inbox", "names no directory"),
        ("hostb:::inbox", "':inbox' cannot be the name of a directory"),
        ("hostb::.inbox", "'.inbox' cannot be the name of a directory"),
        ("hostb::in box", "'in box' cannot be the name of a directory"),
        ("hostb::inbox/../x", "cannot go up with .."),
        ("hostb:http::inbox", "'hostb:http' has no valid port"),
        ("hostb:0::inbox", "'hostb:0' has no valid port"),
        ("a\nb::inbox", r"'a\nb::inbox' is not a location: 'a\nb' is not an address"),
        ("me@hostb::inbox", "'me@hostb' is not an address"),
        ("a::2:3::x", "'2:3::x' cannot be the name of a directory"),
        ("[::1]", "'[::1]' names no directory"),
        ("[::1]:9999", "'[::1]:9999' names no directory"),
        ("[a]::inbox", "'[a]' is not an address"),
        ("[::1]:x::inbox", "has no valid port"),
        ("[a]x::inbox", "is not an address"),
        ("realize://", "is not a location: '' is not an address"),
        ("realize:///inbox", "is not a location: '' is not an address"),
        ("realize://hostb", "names no directory"),
        ("realize://hostb/", "names no directory"),
        ("realize://me@hostb/inbox", "'me@hostb' is not an address"),
        ("realize://hostb/inbox?x", "no query and no fragment"),
        ("realize://hostb/inbox#x", "no query and no fragment"),
        ("realize://hostb/inbox/%zz", "after % come two hexadecimal digits"),
        ("realize://hostb/inbox/100%", "after % come two hexadecimal digits"),
        ("realize://hostb/inbox/a%2Fb", "%2F and %00 cannot be meant"),
        ("realize://hostb/inbox/%00", "%2F and %00 cannot be meant"),
        ("realize://hostb/inbox/%2E%2e", "cannot go up with .."),
        ("realize://hostb/%ff", r"'\xff' cannot be the name of a directory"),
        ("nas:inbox", "'nas:inbox' is not a location: write nas::inbox for a directory that a daemon serves"),
        ("nas:inbox", "or ./nas:inbox for a local file or directory"),
        ("nas:inbox/a b", "write nas::inbox/a b for"),
        ("me@nas:inbox", "write nas::inbox for"),
        ("me@nas:inbox", "or ./me@nas:inbox for"),
        ("nas:", "write nas::DIRECTORY for"),
        ("nas:/store/inbox", "write nas::DIRECTORY for"),
        ("nas:9999:inbox", "write nas:9999::inbox for"),
        ("[::1]:inbox", "write [::1]::inbox for"),
        ("[::1]:inbox/a", "write [::1]::inbox/a for"),
        ("[::1]/a", "write HOST::DIRECTORY for"),
        ("a:b:c", "write HOST::c for"),
        (":x", "or ./:x for"),
        ("C:\\x", r"or ./C:\\x for"),
        ("x\n:y", r"or ./x\n:y for"),
        ("realize:/x", "write realize::DIRECTORY for"),
        ("http://hostb/inbox", "or realize://HOST:PORT/DIRECTORY/PATH, or ./ before it"),
        ("file:///store/a", "is not a location"),
        ("sftp://me@hostb/inbox", "is not a location"),
    ],
)
def test_mistyped(text, expected):
    """What cannot be a location is a usage error that shows the text and says what is wrong with it."""
    with pytest.raises(UsageError) as caught:
        parse_location(text, PEERS)

    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "hostb::inbox", "hostb:", "hostb:x", "::1", "a/b", "a b", "[::1", "realize://hostb"]
)
def test_mistyped_peer(text):
    """What cannot be a peer is a usage error."""
    with pytest.raises(UsageError, match=r"is not a peer: '.*' (is not an address|has no valid port): "):
        parse_peer(text, PEERS)


@pytest.mark.parametrize(
    ("text", "expected", "address"),
    [
        ("hostb::inbox", "hostb:9999::inbox", "hostb.example:9999"),
        ("hostb:1::inbox/a", "hostb:1::inbox/a", "hostb.example:1"),
        ("v6::inbox", "v6:1234::inbox", "[fd00::1]:1234"),
        ("other::inbox", "other:9771::inbox", "other:9771"),
        ("[::1]::inbox/a\nb\udcff", r"[::1]:9771::inbox/a\nb\xff", "[::1]:9771"),
    ],
)
def test_text_form(text, expected, address):
    """A remote location is shown with its port, on one line; its address is what is connected to."""
    location = parse_location(text, PEERS)

    assert expected == str(location)
    assert address == location.address


def test_local_text_form():
    """A local location is shown as it was given, on one line."""
    assert r"./a\nb\xff" == str(LocalLocation("./a\nb\udcff"))
    assert os.path.abspath("a") == LocalLocation("./a").resolved
    assert "[::1]:1" == format_address("::1", 1)


COMPONENTS = st.binary(min_size=1, max_size=10).filter(
    lambda name: name not in {b".", b".."} and not {0, 47} & set(name)
)
ENDS = st.sampled_from(["hostb", "hostb:9771", "v6", "other", "other:1", "[::1]", "[::1]:2"])


@given(ENDS, st.lists(COMPONENTS, max_size=4))
def test_every_name_can_be_written(end, components):
    """A path of any bytes can be given as an argument as it is, and in a URL percent-encoded, and means the same."""
    path = b"/".join(components)
    plain = parse_location(f"{end}::inbox/{path.decode('utf-8', 'surrogateescape')}", PEERS)

    assert path == plain.path
    assert plain == parse_location(f"realize://{end}/inbox/{quote_from_bytes(path)}", PEERS)


@given(ENDS, st.lists(st.from_regex(r"[a-zäöü :%?*-]{1,8}", fullmatch=True), max_size=4))
def test_shown_locations_can_be_typed(end, components):
    """What is shown for a location without odd characters in it is a location again, and the same one."""
    location = parse_location("/".join([f"{end}::inbox", *components]), PEERS)

    assert location == parse_location(str(location), PEERS)


@given(st.text() | st.from_regex(r"(realize://)?[a-z0-9:\[\]/.%]{0,20}(::[a-z0-9:/.%]{0,10})?", fullmatch=True))
def test_any_text_is_a_location_or_refused(text):
    """Whatever is typed, it is a location, shown on one line, or a usage error."""
    try:
        location = parse_location(text, PEERS)
    except UsageError:
        return

    assert len(str(location).splitlines()) <= 1
