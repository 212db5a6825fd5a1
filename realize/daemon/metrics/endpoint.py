"""Where the daemon's metrics and its page can be read, and what has to run only while they can."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from realize.concurrency.reactor import IReactor
from realize.config.problems import config_error
from realize.daemon.listeners import Listeners
from realize.daemon.metrics.counters import Metrics
from realize.daemon.metrics.gauges import Gauges
from realize.daemon.metrics.moves import MoveMetrics
from realize.daemon.page.history import HistorySampler
from realize.daemon.page.resource import StatusPage
from realize.logger import Logger
from realize.telemetry.metrics.exposition import Exposition, Health
from realize.telemetry.metrics.lag import LagProbe


class _View(Collector):
    """All metrics of one registry, for another one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()

    def describe(self) -> Iterable[Metric]:
        """Their names, so that no registry takes those of two services."""
        return self._registry.collect()


class MetricsEndpoint:
    """Serves the metrics of one daemon and its page at an endpoint string, the metrics to a registry as well."""

    def __init__(
        self,
        endpoint: str | None,
        shared: CollectorRegistry | None,
        *,
        reactor: IReactor,
        log: Logger,
        metrics: Metrics,
        gauges: Gauges,
        moves: MoveMetrics,
        health: Health,
        page: StatusPage,
        sampler: HistorySampler,
    ) -> None:
        self._endpoint = endpoint
        self._shared = shared
        self._log = log
        self._gauges = gauges
        metrics.registry.register(gauges)
        metrics.registry.register(moves)
        self._view = _View(metrics.registry)
        self._viewed = False
        self._exposition = Exposition(metrics.registry, health, clock=reactor, log=log, pages=page.pages)
        self._probe = LagProbe(reactor, metrics.lagged)
        self._sampler = sampler
        self._listeners = Listeners(reactor, log)

    def start(self) -> None:
        """Register and listen; raises `realize.errors.ConfigError` if that is not possible."""
        if self._shared is not None:
            try:
                self._shared.register(self._view)
            except ValueError as error:
                raise config_error((("metrics",), f"the registry has other metrics of such names: {error}")) from error
            self._viewed = True
        if self._endpoint is not None:
            self._listeners.open("metrics", self._endpoint, self._exposition, self._opened)
        self._gauges.prepare()
        self._probe.start()
        self._sampler.start()

    def _opened(self, endpoint: str, address: str, port: int | None) -> None:
        self._log.info("metrics_listening", endpoint=endpoint, address=address, port=port)

    async def stop(self) -> None:
        """Close the port and every connection to it, and take the metrics out of the registry of the program."""
        self._probe.stop()
        self._sampler.stop()
        if self._viewed and self._shared is not None:
            self._viewed = False
            self._shared.unregister(self._view)
        await self._listeners.close()
        self._exposition.close()
