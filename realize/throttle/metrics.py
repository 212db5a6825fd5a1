"""The limits that have a name, for prometheus-client: ``REGISTRY.register(NamedLimitsCollector())``.

``docs/metrics.md`` lists what it shows; it is read at the time of a scrape, and costs nothing otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from realize.throttle import limits as limits_of_the_process
from realize.throttle.shared_limits import SharedLimit


class NamedLimitsCollector(Collector):
    """Shows rate, bytes sent and bytes waiting of each of ``limits``, of all that have a name if it is left out."""

    def __init__(self, limits: Mapping[str, SharedLimit] = limits_of_the_process) -> None:
        self._limits = limits

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The three families, with a sample of each limit."""
        rates = GaugeMetricFamily(
            "realize_named_limit_bytes_per_second", "Rate limits in force; +Inf is unlimited.", labels=("name",)
        )
        sent = CounterMetricFamily(
            "realize_named_limit_sent_bytes", "Bytes that were sent by all connections of that name.", labels=("name",)
        )
        waiting = GaugeMetricFamily(
            "realize_named_limit_waiting_bytes", "Bytes that the limit holds back.", labels=("name",)
        )
        for name, limit in sorted(self._limits.items()):
            rates.add_metric([name], math.inf if limit.rate is None else limit.rate)
            sent.add_metric([name], limit.sent)
            waiting.add_metric([name], limit.waiting)
        yield from (rates, sent, waiting)
