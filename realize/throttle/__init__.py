"""How much a process may send: limits for the service, for each peer, for each connection.

``rates``, ``buckets``, ``lateness``, ``meter``, ``backlog``, ``tls_records`` and ``states`` are pure: they import no
Twisted, and take the time as an argument where they need it.
``scheduler`` serves waiting connections on a clock, ``transport`` is the layer between TLS and the application that
holds bytes back: ``write_path`` decides which way a write goes, ``draining`` sends what waits, ``backpressure`` holds
the producers (of ``producers``), ``starting_tls`` keeps ``startTLS`` in its order, ``receiving`` is about what comes.
``factory`` puts it around protocols, ``tree`` names the limits of a daemon and changes them while it runs, with
``timed_limits`` for those that end and ``timetables`` for those that go by the clock, ``shared_limits`` has those of
other programs, ``metrics`` shows these, and ``endpoints`` offers the layer to any Twisted application as ``throttle:``
endpoint strings.

This package imports nothing of ours but `realize.schedule`, `realize.errors` and `realize.units`.
It knows neither AMP nor files.
``docs/throttling.md`` says what is promised, ``docs/endpoints.md`` what an application sees of it.
"""

from __future__ import annotations

from typing import Final

from realize.throttle.shared_limits import SharedLimit, SharedLimits

__all__ = ["SharedLimit", "limits"]

limits: Final = SharedLimits()
"""The limits of this process that have a name, as in ``throttle:tcp:8080:rate=1M:name=web``."""
