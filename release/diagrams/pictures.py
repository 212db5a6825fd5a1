"""What the diagrams show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from release.diagrams.svg import Arrow, Box, Frame, Picture, Words

CONNECTIONS: Final = Picture(
    760,
    340,
    "Who connects to whom",
    "The machine that moves always connects, on one TCP port, 9771, from behind any NAT or firewall. The machine "
    "that serves directories accepts connections on that port. Content goes either way on that connection. Commands "
    "that look at the daemon or change its limits connect to the same port with a key, or on the machine itself to "
    "its control socket. Prometheus fetches the metrics of the daemon at 9772, and those of commands from a "
    "Pushgateway to which they were pushed.",
    (
        Frame(16, 16, 250, 208, "may be behind NAT: no port is open"),
        Frame(494, 16, 250, 208, "one port is open: TCP 9771"),
        Box(36, 50, 210, 72, ("camera", "realize, or a daemon", "with moves of its own"), "strong"),
        Box(36, 150, 210, 54, ("another machine", "status, throttle, moves, check")),
        Box(514, 50, 210, 72, ("nas", "twistd realized", "serves directories"), "strong"),
        Box(514, 150, 180, 54, ("realize on nas itself", "control socket, no key")),
        Box(36, 266, 210, 54, ("Pushgateway", "keeps metrics of commands")),
        Box(514, 266, 210, 54, ("Prometheus", "fetches metrics")),
        Arrow(((246, 80), (514, 80))),
        Words(380, 70, "TLS 1.3 to 9771, keys pinned", anchor="middle"),
        Words(380, 99, "content in either direction", anchor="middle"),
        Arrow(((246, 177), (420, 177), (420, 112), (514, 112))),
        Words(340, 169, "the same, no content", anchor="middle"),
        Arrow(((604, 150), (604, 122))),
        Arrow(((36, 86), (26, 86), (26, 293), (36, 293))),
        Words(36, 246, "HTTP: camera pushes"),
        Arrow(((514, 293), (246, 293))),
        Words(380, 283, "HTTP", anchor="middle"),
        Arrow(((709, 266), (709, 122))),
        Words(700, 246, "HTTP to 9772", anchor="end"),
    ),
)

_STEPS: Final = (
    ("1", "write a partial beside the final name", "destination"),
    ("2", "compare the digests of both ends", "both"),
    ("3", "make the data durable (fsync)", "destination"),
    ("4", "rename the partial to the final name", "destination"),
    ("5", "make the directories above it durable", "destination"),
    ("6", "answer: it is there", "destination"),
    ("7", "look at the file once more; remove it", "source"),
)
_ROW: Final = 46
_SAFE_FROM: Final = 5
"""The last step before the copy alone is enough."""


def _steps() -> Iterator[Box | Arrow | Words]:
    for number, (name, what, where) in enumerate(_STEPS):
        top = 44 + _ROW * number + (34 if number >= _SAFE_FROM else 0)
        yield Box(140, top, 390, 32, (f"{name}. {what}",), "safe" if number >= _SAFE_FROM else "box")
        yield Words(124, top + 21, where, anchor="end")
        if number + 1 < len(_STEPS):
            gap = 34 if number + 1 == _SAFE_FROM else 0
            yield Arrow(((335, top + 32), (335, top + _ROW + gap)))
    line = 44 + _ROW * _SAFE_FROM + 8
    yield Arrow(((20, line), (740, line)), "mark")
    yield Words(740, line - 8, "from here on a power cut is safe for the copy alone", "mark-text", "end")
    yield Words(546, 44 + 21, "A power cut above the line:")
    yield Words(546, 44 + 21 + 18, "the original is whole; the next")
    yield Words(546, 44 + 21 + 36, "run goes on with what is there.")
    yield Words(546, line + 47, "A power cut below the line:")
    yield Words(546, line + 65, "the copy is whole; the next")
    yield Words(546, line + 83, "run removes the original.")
    yield Words(124, 26, "where", "head", "end")
    yield Words(140, 26, "step", "head")


STEPS: Final = Picture(
    760,
    410,
    "The steps of a file",
    "At the destination: 1. write a partial beside the final name; 2. compare the digests of what was read and "
    "written, which both ends compute; 3. make the data durable; 4. rename the partial to the final name; 5. make "
    "its directory durable, and those above. From here on a power cut is safe for the copy alone; before, the "
    "original is what counts, and it is still there. 6. Answer that the file is there. At the source: 7. look at "
    "the file once more, and remove it.",
    tuple(_steps()),
)

SCOPES: Final = Picture(
    760,
    300,
    "The scopes of limits",
    "An example. The service may send 4 MiB/s in all. The peer camera may be sent 1 MiB/s; of its two connections, "
    "one is limited to 256 KiB/s, and the other one gets the remaining 768 KiB/s. The peer archive has no limit: "
    "its connection gets what camera leaves, 3 MiB/s. The tightest limit on the way from a connection up to the "
    "service holds.",
    (
        Box(280, 20, 200, 54, ("service: 4 MiB/s", "all that the daemon sends"), "strong"),
        Box(110, 120, 220, 54, ("peer camera: 1 MiB/s", "its connections together")),
        Box(490, 120, 200, 54, ("peer archive: no limit", "gets what others leave")),
        Box(10, 220, 205, 54, ("connection 17: 256 KiB/s", "sends 256 KiB/s")),
        Box(225, 220, 200, 54, ("connection 18: no limit", "sends 768 KiB/s")),
        Box(490, 220, 200, 54, ("connection 21: no limit", "sends 3 MiB/s")),
        Arrow(((220, 120), (340, 74))),
        Arrow(((590, 120), (420, 74))),
        Arrow(((112, 220), (190, 174))),
        Arrow(((325, 220), (250, 174))),
        Arrow(((590, 220), (590, 174))),
        Words(500, 42, "A byte needs the leave of every box"),
        Words(500, 60, "above it: the tightest limit holds."),
    ),
)


def _stack(left: int, title: str, layers: tuple[tuple[str, str, str], ...]) -> Iterator[Box | Arrow | Words]:
    yield Words(left + 150, 28, title, "head", "middle")
    for number, (name, what, kind) in enumerate(layers):
        top = 44 + 66 * number
        yield Box(left, top, 300, 46, (name, what), kind)
        if number + 1 < len(layers):
            yield Arrow(((left + 150, top + 46), (left + 150, top + 66)))


LAYERS: Final = Picture(
    760,
    350,
    "The layers around TLS",
    "Two stacks, from the application down to TCP. The one of throttle:tls: and throttle:realize: has the limit "
    "between the application and TLS: it counts the bytes of the application and 22 for each TLS record. The one of "
    "tls: with throttle: inside its endpoint has the limit between TLS and TCP: it counts all that TLS sends, the "
    "handshake too. Neither counts the headers of TCP and IP.",
    (
        *_stack(
            40,
            "throttle:tls:…   throttle:realize:…",
            (
                ("application", "writes", "box"),
                ("throttle", "counts its bytes, and 22 a record", "strong"),
                ("TLS", "the handshake is not slowed", "box"),
                ("TCP", "its headers are not counted", "box"),
            ),
        ),
        *_stack(
            420,
            "tls:…:endpoint=throttle\\:tcp\\:…",
            (
                ("application", "writes", "box"),
                ("TLS", "the handshake is held to the limit", "box"),
                ("throttle", "counts all that TLS sends", "strong"),
                ("TCP", "its headers are not counted", "box"),
            ),
        ),
        Words(190, 318, "The better one: the handshake is never held up.", anchor="middle"),
        Words(570, 318, "At very low rates the handshake may time out.", anchor="middle"),
    ),
)

PICTURES: Final[Mapping[str, Picture]] = {
    "connections": CONNECTIONS,
    "steps": STEPS,
    "scopes": SCOPES,
    "layers": LAYERS,
}
"""All of them, by the names of their files."""
