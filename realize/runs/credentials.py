"""Who we are, and which peers we know: from files, read when they are first needed, or as values of a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from realize.config import Config
from realize.config.control import command_control_paths
from realize.config.reading import load_command_config
from realize.config.values import PARTIAL_MAX_AGE_S
from realize.fs.own_files import OWN_FILES
from realize.keys import Identity, PublicKey, load_identity, read_public_key
from realize.places import default_config_path, default_key_path
from realize.values import Compress


class Credentials(Protocol):
    """Our identity and the peers we know; everything but ``peer_key`` may raise `realize.errors.ConfigError`."""

    @property
    def peer_key(self) -> PublicKey | None:
        """The only key accepted at a peer that the configuration does not name; None if there can be none."""

    @property
    def config(self) -> Config:
        """The configuration, with the peers in it."""

    @property
    def partial_max_age_s(self) -> float:
        """Seconds without progress after which a partial is removed; the default if no configuration was read yet."""

    @property
    def compress(self) -> Compress:
        """Whether content is compressed on its way; the default if no configuration was read yet."""

    @property
    def control_paths(self) -> tuple[str, ...]:
        """Where the control socket of a daemon of this machine may be, in the order in which to try."""

    @property
    def config_name(self) -> str:
        """Where the configuration comes from, for people."""

    @property
    def key_name(self) -> str:
        """Where our private key comes from, for people."""

    @property
    def peer_key_name(self) -> str:
        """How ``peer_key`` is given, for people; empty if it cannot be."""

    def identities(self) -> tuple[Identity, ...]:
        """Our own key pair, and former ones, newest first."""


class FileCredentials:
    """What the configuration file and the key files say.

    ``config_file`` is read at once if it is given, and the default file only when a peer is named.
    ``peer_key`` is a public key or the name of a file that has it, and ``peer_key_name`` how it can be given.
    ``warn`` is called with a sentence if other users could change the configuration.
    Raises `realize.errors.ConfigError` and, for ``peer_key``, `realize.errors.UsageError`.
    """

    def __init__(
        self,
        config_file: str | None,
        warn: Callable[[str], None],
        *,
        key_file: str | None = None,
        peer_key: str | None = None,
        peer_key_name: str = "",
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        # Where they are usually, too: a move between local directories reads none, and may meet them all the same.
        OWN_FILES.add(config_file or default_config_path(environ))
        OWN_FILES.add(key_file or default_key_path(environ))
        self.peer_key_name = peer_key_name
        self._environ = environ
        self._warn = warn
        self._config_file = config_file
        self._key_file = key_file
        self._config = self._loaded(config_file) if config_file else None
        self._identities: tuple[Identity, ...] = ()
        self.peer_key = None if peer_key is None else read_public_key(peer_key)

    @property
    def config(self) -> Config:
        """See `Credentials`."""
        if self._config is None:
            self._config = self._loaded(None)
        return self._config

    def _loaded(self, file: str | None) -> Config:
        config = load_command_config(file, self._environ, self._warn)
        for key in (config.key, *config.former_keys):
            if isinstance(key, str):
                OWN_FILES.add(key)
        return config

    @property
    def partial_max_age_s(self) -> float:
        """See `Credentials`."""
        return PARTIAL_MAX_AGE_S if self._config is None else self._config.partial_max_age_s

    @property
    def compress(self) -> Compress:
        """See `Credentials`."""
        return Compress.AUTO if self._config is None else self._config.compress

    @property
    def control_paths(self) -> tuple[str, ...]:
        """See `Credentials`."""
        return _control_paths(self.config, self._environ)

    @property
    def config_name(self) -> str:
        """See `Credentials`."""
        return self._config_file or default_config_path(self._environ)

    @property
    def key_name(self) -> str:
        """See `Credentials`."""
        return self._key_file or str(self.config.key)

    def identities(self) -> tuple[Identity, ...]:
        """See `Credentials`; a key file that was given is the only one."""
        if not self._identities:
            given = self._key_file
            self._identities = self.config.identities() if given is None else (load_identity(given),)
        return self._identities


class GivenCredentials:
    """What a program says in a `Config` of its own."""

    peer_key: Final = None
    peer_key_name: Final = ""
    config_name: Final = "the configuration that this program gives"
    key_name: Final = config_name

    def __init__(self, config: Config) -> None:
        self.config = config
        self.partial_max_age_s = config.partial_max_age_s
        self.compress = config.compress
        self.control_paths = _control_paths(config, os.environ)
        self._identities: tuple[Identity, ...] = ()

    def identities(self) -> tuple[Identity, ...]:
        """See `Credentials`."""
        if not self._identities:
            self._identities = self.config.identities()
        return self._identities


def _control_paths(config: Config, environ: Mapping[str, str]) -> tuple[str, ...]:
    return command_control_paths(environ) if config.control is None else (config.control,)
