"""A headless Chromium that tests control through its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LAUNCHER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
"""Chromium reads commands from file descriptor 3 and answers on 4."""


class Chromium:
    """A browser process; `profile` is the folder for its files."""

    def __init__(self, program: str, profile: Path) -> None:
        commands_out, commands_in = os.pipe()
        answers_out, answers_in = os.pipe()
        options = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--mute-audio",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
            "about:blank",
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(commands_out), str(answers_in), program, *options],
            pass_fds=(commands_out, answers_in),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_out)
        os.close(answers_in)
        self._commands, self._answers = os.fdopen(commands_in, "wb"), os.fdopen(answers_out, "rb")
        self._buffer, self._last_id = b"", 0
        self.tabs: dict[str, Tab] = {}

    def close(self) -> None:
        self._commands.close()
        self._answers.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open(
        self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False, scripts: bool = True
    ) -> Tab:
        """Load a file; returns when all of it is there and its script has run."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self.tabs[session] = Tab(self, session)
        for domain in ("Page", "Runtime", "Log"):
            tab.send(f"{domain}.enable")
        tab.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.send("Emulation.setEmulatedMedia", features=[scheme])
        tab.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        tab.send("Page.navigate", url=page.resolve().as_uri())
        while not tab.loaded:
            self._hear()
        return tab

    def send(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command; returns its result."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            answer = self._hear()
            if answer.get("id") == self._last_id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def _hear(self) -> dict[str, Any]:
        """Return the next message; record events with their tab."""
        while b"\0" not in self._buffer:
            received = os.read(self._answers.fileno(), 1 << 16)
            assert received, "Chromium has ended"
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        heard_message: dict[str, Any] = json.loads(message)
        tab = self.tabs.get(heard_message.get("sessionId", ""))
        if tab is not None and "method" in heard_message:
            tab.note(heard_message["method"], heard_message["params"])
        return heard_message


@dataclass
class Tab:
    """An open page; `errors` contains the errors of its console."""

    browser: Chromium
    session: str
    loaded: bool = False
    errors: list[str] = field(default_factory=list)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.send(method, session=self.session, **parameters)

    def note(self, event: str, message: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self.loaded = True
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(message["exceptionDetails"]))
        elif event == "Log.entryAdded" and message["entry"]["level"] in ("warning", "error"):
            self.errors.append(message["entry"]["text"])
        elif event == "Runtime.consoleAPICalled":
            self.errors.append(str(message["args"]))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression (JSON values); of a promise, what it comes to."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key: its name (``Tab``, ``Enter``), Windows key code, and what it types."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def screenshot(self, *, whole_page: bool = True) -> bytes:
        """Return a PNG of the whole page, or of the first screen."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole_page}
        if whole_page:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        return base64.b64decode(self.send("Page.captureScreenshot", **options)["data"])

    def pdf(self) -> bytes:
        """Return the page as a PDF, A4."""
        options = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True, "printBackground": False}
        return base64.b64decode(self.send("Page.printToPDF", **options)["data"])

    def close(self) -> None:
        self.send("Page.close")
