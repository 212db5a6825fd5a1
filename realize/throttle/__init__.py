"""How much a process may send: limits for the service, for each peer, for each connection.

``buckets`` and ``meter`` are arithmetic and take the time as an argument; they import no Twisted.
``pacer`` gives waiting connections their turns on a clock, ``pacing`` is the layer between TLS and the application that
waits for them, ``tree`` names the limits of a daemon and changes them while it runs, and ``endpoints`` makes the layer
available to any Twisted application as ``throttle:`` endpoint strings.

This package imports nothing of ours but `realize.errors` and `realize.units`.
It knows neither AMP nor files.
``docs/throttling.md`` says what is promised and how it is measured.
"""
