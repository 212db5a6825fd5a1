"""What ``twistd realized`` runs: the daemon, and all that it does to a process of its own.

SIGTERM and SIGINT are handled by the reactor, which stops this service; SIGQUIT, which is added here, does the same.
SIGHUP reads the configuration again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any, Final

import attrs
from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock

from realize.by_value import ByValue
from realize.concurrency.coalesced import Coalesced
from realize.concurrency.reactor import IReactor
from realize.concurrency.thread_pool import ThreadPool, when_ended
from realize.config import Config, read_config
from realize.config.changes import changed_keys
from realize.daemon.heap import Heap
from realize.daemon.logs import DaemonLogs, complain
from realize.daemon.readiness import Readiness
from realize.daemon.reloading import Reloaded
from realize.daemon.service import RealizedService
from realize.daemon.service_manager import ServiceManager
from realize.errors import ConfigError, RealizeError
from realize.exit_codes import DaemonExitCode
from realize.process import (
    SignalHandlers,
    allow_many_files,
    bound_heaps,
    keep_freed_memory,
    show_threads_when_aborted,
)

DRAIN_KILL_AFTER_S: Final = 15.0
"""A stopping daemon is killed this long after its drain time."""

STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Signals that stop the daemon in order (the first two through the reactor); a second one of them stops it at once."""


@frozen(eq=False, repr=False)
class Overrides(ByValue):
    """What options of the command line put in the place of the configuration; None where none was given."""

    drain_s: float | None = None
    metrics: str | None = None
    """Twisted server endpoint string."""

    def over(self, config: Config) -> Config:
        """The configuration that applies."""
        drain_s = config.drain_s if self.drain_s is None else self.drain_s
        metrics = config.metrics if self.metrics is None else self.metrics
        return attrs.evolve(config, drain_s=drain_s, metrics=metrics)

    def sentence(self, path: str, error: ConfigError) -> str:
        """What is wrong, with the option or the file that says so."""
        if self.metrics is not None and [key for key, _ in error.problems] == [("metrics",)]:
            return f"--metrics-addr: {error.problems[0][1]}"
        return "\n".join(f"{path}: {line}" for line in str(error).splitlines())


class TwistdService(Service):
    """The daemon in a process of its own, with the configuration in the file at ``path``."""

    name = "realized"

    def __init__(
        self,
        path: str,
        config: Config,
        reactor: IReactor,
        *,
        logs: DaemonLogs,
        overrides: Overrides,
        manager: ServiceManager,
        in_background: bool = False,
        control: str | None = None,
        state: str | None = None,
    ) -> None:
        """``control`` is where the control socket is, and ``state`` the state directory, unless the configuration says.

        ``manager`` is told when the daemon is ready, and what it does.
        ``in_background`` says that ``twistd`` waits in another process until this one has started.
        Raises `ConfigError` if the key file cannot be used.
        """
        self._path = path
        self._reactor = reactor
        self._logs = logs
        self._overrides = overrides
        self._in_background = in_background
        self._log = logs.of("daemon")
        self._signals = SignalHandlers()
        self._reloads = DeferredLock()
        self._reloading = Coalesced(self.reload)
        self._reader = ThreadPool(reactor, 1, "configuration file")
        self._control = control
        self._state = state
        self._uses_default_control = self._is_default_control(config)
        self._realized = RealizedService(self._effective(config), reactor, logs=logs, source=path, reload=self.reload)
        self._manager = manager
        self._readiness = Readiness(manager, reactor, lambda: self._realized.activity)
        self._heap = Heap(reactor, lambda: self._realized.held_bytes, bound_heaps())

    def setServiceParent(self, parent: Any) -> None:
        """Join an application, and take over its log unless that was set otherwise."""
        self._logs.attach(parent)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start to serve; ends the process if the log cannot be opened, or the daemon cannot start."""
        super().startService()
        try:
            self._logs.start(self._reactor)
        except ConfigError as error:
            complain(error)
            raise self._end(error) from error
        allow_many_files()
        keep_freed_memory()
        self._manager.unreachable = lambda reason: self._log.warning("service_manager_unreachable", error=reason)
        if self._manager.watchdog_s is not None:
            show_threads_when_aborted()
        self._signals.on(signal.SIGHUP, lambda: self._reactor.callFromThread(self._reloading.request))
        self._signals.on(signal.SIGQUIT, lambda: self._reactor.callFromThread(self._reactor.stop))
        try:
            self._realized.startService()
        except ConfigError as error:
            self._log.error("cannot_start", error=self._overrides.sentence(self._path, error))
            raise self._end(error) from error
        if self._control is not None and self._uses_default_control:
            self._open_control(self._control)
        self._heap.start()
        self._reactor.callWhenRunning(self._readiness.ready)

    def _end(self, error: ConfigError) -> BaseException:
        """What ends this process: any other exception would be shown with a traceback, which tells an operator nothing.

        The configuration was read before, so what is wrong now, such as a port that is in use, may be over in a moment.

        But ``twistd`` in the background tells only of an `Exception` to the process that waits for it, and without that
        it would wait for ever; nobody sees the traceback there.
        """
        return error if self._in_background else SystemExit(DaemonExitCode.FAILED)

    def _is_default_control(self, config: Config) -> bool:
        return self._control is not None and config.control == self._control

    def _effective(self, config: Config) -> Config:
        """What the service is given: a socket that nobody asked for is opened here, and is no reason not to start."""
        asked = None if self._is_default_control(config) else config.control
        state = self._state if config.state is None else config.state
        return attrs.evolve(self._overrides.over(config), control=asked, state=state)

    def _open_control(self, path: str) -> None:
        try:
            self._realized.open_control(path)
        except ConfigError as error:
            self._log.warning("control_missing", path=path, error=error.problems[0][1])

    def reload(self) -> Deferred[Reloaded]:
        """Read the configuration again and apply it; an invalid one is logged and changes nothing."""
        return self._reloads.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> Reloaded:
        self._readiness.reloading()
        failed = True
        try:
            reloaded = await self._take_over()
            failed = False
        except (RealizeError, MemoryError) as error:
            sentence = str(error) or "not enough memory"
            self._log.error("reload_failed", config=self._path, error=sentence)
            reloaded = Reloaded(errors=sentence.splitlines())
        finally:
            self._readiness.reloaded(failed=failed)
        return reloaded

    async def _take_over(self) -> Reloaded:
        before, waiting = self._realized.config, self._realized.restart_keys
        config = await self._reader.run(lambda: read_config(self._path, for_daemon=True, control=self._control))
        keys = await self._realized.reload(self._effective(config))
        if self._is_default_control(config) != self._uses_default_control and "control" not in keys:
            keys = (*keys, "control")
        if self._logs.reload(config.logs):
            keys = (*keys, "logs")
        if keys:
            self._log.warning("restart_needed", config=self._path, keys=list(keys))
        elif waiting:
            self._log.info("restart_not_needed", config=self._path, keys=list(waiting))
        self._realized.restart_keys = keys
        return Reloaded(changes=changed_keys(before, self._realized.config), restart_needed=keys)

    def stopService(self) -> Deferred[None]:
        """Stop the daemon in order; the process is killed if that takes too long, or at a second signal."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        super().stopService()
        stopping = time.monotonic()

        def stop_at_once() -> None:
            # In a thread, because the signal may have interrupted code that is using the log.
            threading.Thread(target=lambda: self._force(time.monotonic() - stopping), daemon=True).start()

        self._signals.on(signal.SIGHUP, lambda: None)
        for number in STOPPING:
            self._signals.on(number, stop_at_once)
        self._heap.stop()
        # Stopping may have to wait for threads, which cannot be stopped themselves.
        drain_s = self._realized.config.drain_s
        seconds = drain_s + DRAIN_KILL_AFTER_S
        self._readiness.stopping(drain_s, seconds)
        forced = threading.Timer(seconds, self._force, [seconds])
        forced.daemon = True
        forced.start()
        try:
            await self._realized.stopService()
            await when_ended(self._reactor, self._reader.retire())
        finally:
            forced.cancel()
        self._readiness.stop()
        self._logs.stop()
        self._signals.restore()

    def _force(self, seconds: float) -> None:
        """End the process at once, from another thread: after a second signal, or if something hangs, such as a disk.

        ``seconds`` is for how long it has tried to stop in order.
        """
        self._log.error("stop_forced", seconds=round(seconds, 3))
        self._logs.flush(1.0)
        os._exit(1)
