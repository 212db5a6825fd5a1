"""The port where Prometheus can scrape the daemon's metrics, and what has to run only while there is one."""

from __future__ import annotations

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from realize.concurrency.reactor import IReactor
from realize.daemon.metrics.counters import Metrics
from realize.daemon.metrics.gauges import Gauges
from realize.errors import ConfigError
from realize.logger import Logger
from realize.telemetry.metrics.exposition import Exposition, Health, listen
from realize.telemetry.metrics.lag import LagProbe


class MetricsEndpoint:
    """Serves ``metrics`` and ``gauges`` at an endpoint string.

    ``setting`` names, for error messages, the option or configuration key that the endpoint string comes from.
    """

    def __init__(
        self,
        endpoint: str,
        setting: str,
        *,
        reactor: IReactor,
        log: Logger,
        metrics: Metrics,
        gauges: Gauges,
        health: Health,
    ) -> None:
        self._endpoint = endpoint
        self._setting = setting
        self._reactor = reactor
        self._log = log
        self._gauges = gauges
        metrics.registry.register(gauges)
        self._exposition = Exposition(metrics.registry, health, clock=reactor, log=log)
        self._probe = LagProbe(reactor, metrics.lagged)
        self._port: IListeningPort | None = None

    def start(self) -> None:
        """Listen; raises `realize.errors.ConfigError` if that is not possible."""
        failures: list[Failure] = []
        listen(self._reactor, self._endpoint, self._exposition).addCallbacks(self._listening, failures.append)
        if failures:
            raise ConfigError(f"{self._setting}: {failures[0].getErrorMessage()}")
        self._gauges.prepare()
        self._probe.start()

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        address = port.getHost()
        self._log.info(
            "metrics_listening",
            endpoint=self._endpoint,
            address=getattr(address, "host", str(address)),
            port=getattr(address, "port", None),
        )

    async def stop(self) -> None:
        """Close the port and every connection to it."""
        self._probe.stop()
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        self._exposition.close()
