"""Debian's Chromium, headless, driven by its own chromedriver over the WebDriver protocol.

A few calls of plain HTTP, for which the package selenium would bring ten others. The driver names the port it chose.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NEEDED = ("chromium", "chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)
LOGS = {"browser": "ALL", "performance": "ALL"}


class Browser:
    """One window."""

    def __init__(self, address: str, profile: Path) -> None:
        self._address = address
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]}
        capabilities = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": LOGS}
        made = self._post("/session", capabilities={"alwaysMatch": capabilities})
        self._session = f"/session/{made['sessionId']}"

    def open(self, page: Path) -> None:
        """Open a file, and forget what was logged before."""
        for kind in LOGS:
            self.log(kind)
        self._post(f"{self._session}/url", url=page.absolute().as_uri())

    def run(self, script: str) -> Any:
        """What a function with this body returns, called in the page."""
        return self._post(f"{self._session}/execute/sync", script=script, args=[])

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._post(f"{self._session}/goog/cdp/execute", cmd=command, params=parameters)

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since the last call: "browser" for the console, "performance" for DevTools' events."""
        return self._post(f"{self._session}/se/log", type=kind)

    def requests(self) -> list[str]:
        """The addresses requested since the last call."""
        events = (json.loads(entry["message"])["message"] for entry in self.log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def show(self, *, width: int, scheme: str = "light", media: str = "screen") -> None:
        """A window of this width, with a light or dark color scheme."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", media=media, features=features)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        down = {"key": key, "windowsVirtualKeyCode": code, **({"text": text} if text else {})}
        self.devtools("Input.dispatchKeyEvent", type="keyDown", **down)
        self.devtools("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def picture(self) -> bytes:
        """PNG of the whole page."""
        taken = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def close(self) -> None:
        self._send("DELETE", self._session)

    def _post(self, path: str, **values: Any) -> Any:
        return self._send("POST", path, values)

    def _send(self, method: str, path: str, values: Mapping[str, Any] | None = None) -> Any:
        body = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(
            self._address + path, body, {"Content-Type": "application/json"}, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as answer:
            return json.load(answer)["value"]


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in this folder; it and its driver end with the block."""
    command = [str(shutil.which("chromedriver")), "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
        try:
            assert driver.stdout is not None
            matches = (re.search(r"started successfully on port (\d+)", line) for line in driver.stdout)
            port = next(match[1] for match in matches if match)
            made = Browser(f"http://127.0.0.1:{port}", profile)
            try:
                yield made
            finally:
                made.close()
        finally:
            driver.terminate()
