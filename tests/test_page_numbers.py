"""Numbers that pages promise are those of the code: bounds, times and limits that somebody may rely on."""

from __future__ import annotations

import pytest

from realize.cli.deadline import KILL_AFTER_S
from realize.cli.main import MOST_AFTER_A_SIGNAL_S
from realize.cli.runner import SIGNAL_KILL_AFTER_S
from realize.concurrency.memory import MIN_PEER_BYTES
from realize.config.addresses import DEFAULT_PORT
from realize.daemon.twistd_service import DRAIN_KILL_AFTER_S
from realize.fs.names import MAX_PATH_BYTES, MAX_PATH_COMPONENTS
from realize.fs.xattrs import MAX_XATTRS_BYTES
from realize.keys import MAX_KEYS
from realize.mover.jobs import CANCEL_TIMEOUT_S
from realize.mover.move import DELAYS
from realize.mover.run import SOURCE_IDLE_S
from realize.runs.check_findings import MAX_CLOCK_SKEW_S, SLOW_COMMIT_S
from realize.runs.checking import STEP_TIMEOUT_S
from realize.runs.metrics import PUSH_INTERVAL_S
from realize.runs.reconnecting import MAX_DELAY_S
from realize.store.client.listing import MAX_LISTED_ENTRIES
from realize.store.local.promised_space import STALLED_AFTER_S
from realize.store.server.streams import STREAM_IDLE_TIMEOUT_S
from realize.telemetry.logging.limiting import MAX_PEER_EVENTS
from realize.telemetry.metrics.exposition import REQUEST_TIMEOUT_S
from realize.values import MAX_ALIKE_FILES, MAX_COMPONENT_BYTES, MAX_TARGET_BYTES, MIN_HOLE_BYTES
from realize.watch.settling import MAX_KNOWN_FILES
from realize.wire.boxes import MAX_BOX_BYTES
from realize.wire.control_client import MAX_CONTROL_CONNECTIONS
from realize.wire.server import HANDSHAKE_TIMEOUT_S, MAX_PEER_CONNECTIONS, MAX_UNAUTHENTICATED_CONNECTIONS
from tests.pages import page

KIB, MIB = 1 << 10, 1 << 20

HELD: list[tuple[str, str, float]] = [
    ("protocol.md", "allows {} s for handshake and Hello together", HANDSHAKE_TIMEOUT_S),
    ("protocol.md", "and {} connections that have not said Hello", MAX_UNAUTHENTICATED_CONNECTIONS),
    ("protocol.md", "One peer may have {} connections", MAX_PEER_CONNECTIONS),
    ("security.md", "A peer always gets {} MiB, whatever all others hold", MIN_PEER_BYTES / MIB),
    ("security.md", "a box of at most {} KiB that is not complete", MAX_BOX_BYTES / KIB),
    ("protocol.md", "paths of more than {} bytes are `BAD_NAME`", MAX_PATH_BYTES),
    ("protocol.md", "paths of more than {} components", MAX_PATH_COMPONENTS),
    ("protocol.md", "components of more than {} bytes", MAX_COMPONENT_BYTES),
    ("security.md", "at most {} bytes, escaped wherever they are shown", MAX_TARGET_BYTES),
    ("security.md", "There are {} connections at most", MAX_CONTROL_CONNECTIONS),
    ("security.md", "or of more than {} million names, is refused", MAX_LISTED_ENTRIES // 1_000_000),
    ("security.md", "(`control_refused`, {} a minute at most for each user)", MAX_PEER_EVENTS),
    ("security.md", "does not read is cut off after {} seconds", REQUEST_TIMEOUT_S),
    ("daemon.md", "{} s after the drain time it ends itself by force", DRAIN_KILL_AFTER_S),
    ("daemon.md", "wait longer than `drain` and {} s before it kills", DRAIN_KILL_AFTER_S),
    ("operations.md", "up to {} files are known by name", MAX_KNOWN_FILES),
    ("usage.md", "no answer and nothing moved for {} seconds", SOURCE_IDLE_S),
    ("limits.md", "{} s after limit and grace the process ends by force", KILL_AFTER_S),
    ("limits.md", "is ended by force within {} seconds", SIGNAL_KILL_AFTER_S + MOST_AFTER_A_SIGNAL_S),
    ("scripting.md", "that hangs: then within {} seconds", SIGNAL_KILL_AFTER_S + MOST_AFTER_A_SIGNAL_S),
    ("limits.md", "waits for the answer, {} seconds at most", CANCEL_TIMEOUT_S),
    ("limits.md", "after twice as long each time, up to {} minutes", MAX_DELAY_S / 60),
    ("check.md", "Each step takes at most {} seconds", STEP_TIMEOUT_S),
    ("check.md", "how sure that is; more than {} s is a warning", MAX_CLOCK_SKEW_S),
    ("check.md", "more than {} s is a warning. It needs the right", SLOW_COMMIT_S),
    ("preserving.md", "`user.*`, up to {} KiB for a file", MAX_XATTRS_BYTES / KIB),
    ("traffic.md", "A hole shorter than {} KiB is sent as zeros", MIN_HOLE_BYTES / KIB),
    ("troubleshooting.md", "The default port is {}.", DEFAULT_PORT),
    ("commands.md", "Each step takes at most {} seconds", STEP_TIMEOUT_S),
    ("commands.md", "at the start, every {} s, and at the end", PUSH_INTERVAL_S),
    ("logging.md", "are limited to {} a minute for each event and peer", MAX_PEER_EVENTS),
    ("moves.md", "after {} seconds the next one begins beside it", SOURCE_IDLE_S),
]
"""Page, sentence, and the number that stands in it."""

IN_WORDS: list[tuple[str, str, bool]] = [
    ("usage.md", "and at the eight latest numbered ones of the same size", MAX_ALIKE_FILES == 8),
    ("usage.md", "Realize tries it three more times within some seconds", len(DELAYS) == 3),
    ("security.md", "or any of up to four while it [changes its key]", MAX_KEYS == 4),
    ("security.md", "on which nothing comes for ten minutes is closed", STREAM_IDLE_TIMEOUT_S == 600),
    ("security.md", "does not grow is given to others after a minute", STALLED_AFTER_S == 60),
]
"""Page, sentence, and whether it is true."""


@pytest.mark.parametrize(("name", "sentence", "number"), HELD)
def test_the_number_is_that_of_the_code(name: str, sentence: str, number: float) -> None:
    """Where one of them changes, the page does."""
    assert number == int(number)
    assert sentence.format(str(int(number)) if number == DEFAULT_PORT else f"{int(number):,}") in " ".join(
        page(name).split()
    )


@pytest.mark.parametrize(("name", "sentence", "true"), IN_WORDS)
def test_the_number_in_words_is_that_of_the_code(name: str, sentence: str, true: bool) -> None:
    """The same for numbers that are written out."""
    assert true
    assert sentence in " ".join(page(name).split())
