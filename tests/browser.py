"""A real browser without a window, for the tests of the page: Debian's chromium, driven by its chromedriver.

WebDriver is JSON over HTTP, and the rest are commands of the DevTools protocol, so no library is needed for it.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.prometheus import program

_LISTENING = re.compile(r"started successfully on port (\d+)")
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Browser:
    """One browser with one page; to be entered."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._log = folder / "log"

    def __enter__(self):
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program("chromedriver"), "--port=0"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._url = f"http://127.0.0.1:{self._port()}/session"
            options = {"binary": program("chromium"), "args": [*_ARGUMENTS, f"--user-data-dir={self._folder}/profile"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            self._url += "/" + self._ask("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("", None, "DELETE")
        finally:
            self._end()

    def _port(self) -> int:
        until = time.monotonic() + 30
        while not (found := _LISTENING.search(self._log.read_text())):
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < until, self._log.read_text()
            time.sleep(0.02)
        return int(found[1])

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _ask(self, path: str, body: object, method: str = "POST") -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, content, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        """Load a page, to its end."""
        self._ask("/url", {"url": url})

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to on the page."""
        return self._ask("/execute/sync", {"script": f"return {expression}", "args": []})

    def command(self, name: str, **parameters: object) -> Any:
        """The answer to a command of the DevTools protocol."""
        return self._ask("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def complaints(self) -> list[str]:
        """What was written to the console since the last call, by the page or about it."""
        return [entry["message"] for entry in self._ask("/se/log", {"type": "browser"})]

    def look(self, width: int, *, dark: bool = False) -> None:
        """Be so many pixels wide, and prefer a scheme of colours."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def told(self) -> list[tuple[str, str]]:
        """Role and name of all that a screen reader can tell of the page."""
        nodes = self.command("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        ]
