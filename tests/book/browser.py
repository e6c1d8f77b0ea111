"""Headless Chromium through its DevTools pipe: no driver, no further package.

The browser gets JSON messages, each ended by a null byte, on its file descriptor 3 and answers on
4. It has a profile of its own and no network but this machine.
"""

import fcntl
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
    "--no-first-run",
    "--no-sandbox",  # which the root of a container cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
)


def executable() -> str | None:
    """Return the path of an installed browser."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Visit:
    """What a page asked for and complained about while it loaded."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def note(self, method: str, content: dict[str, Any]) -> None:
        """Take in one event of the browser."""
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(content["request"]["url"])
            case "Runtime.exceptionThrown":
                details = content["exceptionDetails"]
                self.complaints.append(details.get("exception", details).get("description", ""))
            case "Runtime.consoleAPICalled" if content["type"] == "error":
                self.complaints.append(" ".join(str(one.get("value")) for one in content["args"]))
            case "Log.entryAdded" if content["entry"]["level"] == "error":
                self.complaints.append(f"{content['entry']['text']} {content['entry'].get('url')}")


class Browser:
    """A running browser with one tab."""

    def __init__(self, program: str, profile: Path) -> None:
        to_browser, self._out = self._pipe()
        self._in, from_browser = self._pipe()

        def connect() -> None:
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        self._process = subprocess.Popen(
            [program, *OPTIONS, f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=connect,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._visit = Visit()
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    @staticmethod
    def _pipe() -> tuple[int, int]:
        """Open a pipe whose ends are not 3 or 4, which the browser's own need."""
        low = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
        for end in low:
            os.close(end)
        return high[0], high[1]

    def _receive(self) -> dict[str, Any]:
        """Return the browser's next message."""
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 65536)
            if not chunk:
                raise EOFError("the browser is gone")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _receive_until(self, wanted: str | int) -> dict[str, Any]:
        """Take in events until the named one, or the reply of the given number, arrives."""
        while True:
            message = self._receive()
            if "method" in message:
                self._visit.note(message["method"], message["params"])
            if wanted in (message.get("method"), message.get("id")):
                return message

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """Give a command and return its result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._out, json.dumps(command).encode() + b"\0")
        reply = self._receive_until(self._number)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return dict(reply["result"])

    def show(self, width: int, scheme: str) -> None:
        """Give the page a width in pixels and the colour scheme that its reader prefers."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 768,
        )
        preferred = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=preferred)

    def visit(self, address: str) -> Visit:
        """Open a page; return once it has loaded and its formulas are typeset."""
        self._visit = Visit()
        self.send("Page.navigate", url=address)
        self._receive_until("Page.loadEventFired")
        self.evaluate("window.MathJax ? MathJax.startup.promise.then(() => true) : true")
        return self._visit

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited if it is a promise."""
        reply = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in reply:
            raise RuntimeError(f"{expression}: {reply['exceptionDetails']}")
        return reply["result"].get("value")

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
