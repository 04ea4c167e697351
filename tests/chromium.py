"""A browser for tests: headless Chromium, driven over a pipe with its own protocol (CDP), without any other program."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any

TIMEOUT_S = 30.0


def find_chromium() -> str | None:
    """The program, None where there is none."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class Browser:
    """One process of the browser; `page` opens a tab."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="nopokedb-chromium-")
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        command = [
            program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars", "--mute-audio",
            f"--user-data-dir={self._profile.name}", "about:blank",
        ]  # fmt: skip

        # The protocol speaks on the descriptors 3 and 4. Both ends are moved away first: one may be 3 or 4 already.
        script = f'exec 8<&{to_browser} 9>&{from_browser}; exec 3<&8 4>&9; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number = 0
        self._answers: dict[int, Queue[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        # Its helpers end a moment after it, and write to the profile until then.
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                self._profile.cleanup()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _listen(self) -> None:
        buffer = b""
        while True:
            try:
                part = os.read(self._read, 1 << 20)
            except OSError:
                return
            if not part:
                return
            *messages, buffer = (buffer + part).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.pop(message["id"]).put(message)
                elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                    page.happened(message["method"], message["params"])

    def send(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Call a method of the protocol; what it answers."""
        self._number += 1
        number = self._number
        answer: Queue[dict[str, Any]] = Queue()
        self._answers[number] = answer
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        try:
            found = answer.get(timeout=TIMEOUT_S)
        except Empty:
            raise TimeoutError(f"no answer to {method}") from None
        assert "error" not in found, (method, found["error"])
        return found["result"]

    def page(self, url: str, *, width: int = 1280, height: int = 860, dark: bool = False, scale: float = 1.0) -> Page:
        """A tab of its own session (cookies and storage), with the page loaded."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        page.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        page.send("Page.navigate", url=url)
        return page


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.problems: list[str] = []
        """Uncaught errors and what the browser logged as an error, refusals of the policy included."""
        self.requested: list[str] = []
        """Every address that was asked for."""

    def send(self, method: str, **params: Any) -> Any:
        return self._browser.send(method, self._session, **params)

    def happened(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.problems.append(str(params["args"]))
        elif method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, timeout_s: float = TIMEOUT_S) -> Any:
        """Until the expression is true; its value, or True for an element."""
        deadline = time.monotonic() + timeout_s
        while not (
            value := self.run(f"(() => {{ const found = ({script}); return found instanceof Node ? true : found }})()")
        ):
            assert time.monotonic() < deadline, f"never true: {script}\n{self.problems}\n{self.text()}"
            time.sleep(0.03)
        return value

    def text(self) -> str:
        """What can be read on the page."""
        return self.run("document.body.innerText") or ""

    def wait_text(self, text: str) -> None:
        """Until the text is on the page."""
        self.wait(f"document.body.innerText.includes({json.dumps(text)})")

    def click(self, script: str) -> None:
        """Click with the mouse in the middle of the element that the expression finds, as soon as it can be."""
        self.wait(f"((e) => !!e && !e.disabled)({script})")
        self.run(f"({script}).scrollIntoView({{block: 'center'}})")
        x, y, width, height = self.box(script)
        self.click_at(x + width / 2, y + height / 2)

    def box(self, script: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of the element that the expression finds."""
        found = self.run(f"(({{ x, y, width, height }}) => [x, y, width, height])(({script}).getBoundingClientRect())")
        return tuple(found)

    def click_at(self, x: float, y: float) -> None:
        self.move_to(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def move_to(self, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def press(self, key: str, code: int = 0) -> None:
        """Press one key."""
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def button(self, words: str) -> str:
        """An expression that finds a button or link by its words or label."""
        wanted = json.dumps(words)
        return (
            f"[...document.querySelectorAll('button, a')].find((e) => e.offsetParent !== null && "
            f"(e.textContent.trim() === {wanted} || e.getAttribute('aria-label') === {wanted}))"
        )

    def screenshot(self, path: Path) -> None:
        """What is to be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
