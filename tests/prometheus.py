"""Prometheus and its Pushgateway, the real ones, on loopback, for the tests that ask them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

RULES = Path(__file__).parent.parent / "deploy" / "prometheus"
LISTENING = re.compile(r'msg="Listening on" address=127\.0\.0\.1:(\d+)')


def program(name: str) -> str:
    """Where a program is; a test that needs it fails without it."""
    package = {"promtool": "prometheus", "chromedriver": "chromium-driver"}.get(name, name)
    return shutil.which(name) or pytest.fail(f"{name} is not installed: apt-get install {package} (as .ci/run does)")


def fetch(url: str, accept: str | None = None) -> str:
    """What is at a URL."""
    request = urllib.request.Request(url, headers={} if accept is None else {"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def check_metrics(exposition: str) -> str:
    """What `promtool check metrics` has to say against an exposition in the text format; nothing is well."""
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=exposition, capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr).strip() or ("" if done.returncode == 0 else f"exit code {done.returncode}")


def shipped_rules() -> str:
    """The rules of `deploy/`, recording and alerts, as one file."""
    texts = [(RULES / name).read_text() for name in ("recording.yml", "alerts.yml")]
    return "groups:\n" + "".join(text.partition("\ngroups:\n")[2] for text in texts)


class _Server:
    """A process that says in its log where it listens; to be entered."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._log = folder / "log"
        self._command = command
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        until = time.monotonic() + 30
        while not (found := LISTENING.search(self._log.read_text())):
            if self._process.poll() is not None or time.monotonic() > until:
                self._end()
                raise AssertionError(f"{self._command[0]} did not start:\n{self._log.read_text()}")
            time.sleep(0.02)
        self.port = int(found[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait_until_ready(self) -> None:
        """Wait until it says that it is."""
        until = time.monotonic() + 30
        while True:
            try:
                fetch(f"{self.url}/-/ready")
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)
            else:
                return


class Pushgateway(_Server):
    """A Pushgateway that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            [program("prometheus-pushgateway"), "--web.listen-address=127.0.0.1:0", "--persistence.file="],
        )

    def groups(self) -> list[dict]:
        """The groups: their labels, and the metrics by name, as the API tells them."""
        return json.loads(fetch(f"{self.url}/api/v1/metrics"))["data"]

    def values(self, name: str) -> dict[frozenset, float]:
        """The values of a metric by its labels, in all groups."""
        found = {}
        for group in self.groups():
            for sample in group.get(name, {}).get("metrics", []):
                found[frozenset(sample["labels"].items())] = float(sample["value"])
        return found

    def value(self, name: str) -> float | None:
        """The one value of a metric, or None if there is no such metric."""
        values = list(self.values(name).values())
        assert len(values) < 2
        return values[0] if values else None


class Prometheus(_Server):
    """A Prometheus with the scrape configuration and the rules of a test; it scrapes every half second.

    ``scrape_configs`` is that part of the configuration, a list or YAML; ``rules`` is the content of a file of rules.
    """

    def __init__(self, folder: Path, scrape_configs: list[dict] | str, rules: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rules.yml").write_text(rules)
        every = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        if not isinstance(scrape_configs, str):
            scrape_configs = f"scrape_configs: {json.dumps(scrape_configs)}\n"
        # JSON is YAML.
        files = json.dumps([str(folder / "rules.yml")] if rules else [])
        (folder / "prometheus.yml").write_text(f"global: {json.dumps(every)}\nrule_files: {files}\n{scrape_configs}")
        super().__init__(
            folder,
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
        )

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that an expression has now."""
        answer = json.loads(fetch(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))
        return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]

    def wait_for(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The same as soon as there are any."""
        self.wait_until_ready()
        until = time.monotonic() + 30
        while not (found := self.query(expression)):
            assert time.monotonic() < until, f"{expression} has no value"
            time.sleep(0.1)
        return found
