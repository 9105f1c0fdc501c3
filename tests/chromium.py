"""A real browser to look at pages with: Chromium without a window, driven by its DevTools protocol over two pipes.

Nothing but Chromium itself is needed. `findings` tells what is wrong with a page of the site: errors on its console,
requests to elsewhere, dead links, overflow, unnamed controls, text too faint to read.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urldefrag

BINARIES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE, DESK = (375, 800), (1280, 900)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--no-default-browser-check", "--mute-audio", "--remote-debugging-pipe"),
)


def binary() -> str | None:
    """Chromium on this machine; None where there is none."""
    return next((found for name in BINARIES if (found := shutil.which(name))), None)


class Browser:
    """One Chromium with one tab, as a context. `errors` and `requests` are those of the page that was opened last."""

    def __init__(self, patience: float = 60.0) -> None:
        self.patience, self.errors, self.requests = patience, [], []  # type: ignore[var-annotated]
        self._events: list[dict[str, Any]] = []
        self._buffer, self._number = b"", 0

    def __enter__(self) -> Self:
        found = binary()
        assert found is not None
        self._profile = tempfile.mkdtemp()
        to_it, self._write = os.pipe()
        self._read, from_it = os.pipe()

        def place() -> None:  # Chromium reads commands from descriptor 3 and answers on 4
            os.dup2(from_it, 4 + 100)
            os.dup2(to_it, 3)
            os.dup2(4 + 100, 4)
            os.set_inheritable(3, True)
            os.set_inheritable(4, True)

        self._process = subprocess.Popen(
            [found, *OPTIONS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=place,
            start_new_session=True,
        )
        os.close(to_it)
        os.close(from_it)
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        tab = next(target for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=tab["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._session = None
            self.call("Browser.close")
            self._process.wait(10)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give one command and return its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self.patience
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self._events.append(answer)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"Chromium was silent for {self.patience:g} s"
            piece = os.read(self._read, 1 << 20)
            assert piece, "Chromium ended"
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(message))

    def open(self, page: Path, fragment: str = "", size: tuple[int, int] = DESK, dark: bool = False) -> None:
        """Show a file in a window of that size, and wait until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=False,  # a mobile window grows with what is too wide for it, and so would hide it
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.call("Page.navigate", url="about:blank")  # so that a new fragment alone loads the page again, too
        self._events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri() + fragment)
        deadline = time.monotonic() + self.patience
        while self.run("document.URL + ' ' + document.readyState").split(" ") != [
            page.resolve().as_uri() + self.run("location.hash"),
            "complete",
        ]:
            assert time.monotonic() < deadline, f"{page} did not load"
            time.sleep(0.01)
        self.settle()

    def settle(self) -> None:
        """Let the page draw, and note what it said and asked for."""
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
        self.errors, self.requests = [], []
        for event in self._events:
            told, what = event.get("params", {}), event.get("method")
            if what == "Runtime.exceptionThrown":
                self.errors.append(str(told["exceptionDetails"].get("exception", {}).get("description", told)))
            elif what == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
                self.errors.append(str([of.get("value") for of in told["args"]]))
            elif what == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                self.errors.append(told["entry"]["text"])
            elif what == "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key, as the keyboard does."""
        told = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **told, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def shoot(self, target: Path, most: int = 12_000) -> None:
        """A picture of the whole page, at most so many pixels high."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most), "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(base64.b64decode(shot["data"]))


_LOOK = r"""(() => {
  const found = [], seen = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const name = (element) => element.outerHTML.slice(0, 90);
  const [wide, room] = [document.scrollingElement.scrollWidth, document.documentElement.clientWidth];
  if (wide > room) {
    const cause = [...document.body.querySelectorAll("*")].find((element) =>
      !element.closest(".scroll, svg, .hidden") && element.getBoundingClientRect().right > room + 1);
    found.push(`overflow: ${wide} of ${room} px, first by ${cause ? name(cause) : "?"}`);
  }
  for (const element of document.querySelectorAll("input, select, button, a[href], [role=region], svg[role=img]")) {
    const labels = [...(element.labels || [])].map((of) => of.textContent).join("");
    const label = labels || element.ariaLabel || element.textContent;
    if (!label.trim()) found.push(`without a name: ${name(element)}`);
  }
  for (const svg of document.querySelectorAll("svg:not([aria-hidden=true] *, [aria-hidden=true], [role=img])"))
    found.push(`svg says nothing: ${name(svg)}`);
  for (const table of document.querySelectorAll("table"))
    if ([...table.querySelectorAll("th")].some((cell) => !cell.scope)) found.push(`th without scope: ${name(table)}`);
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  let level = 0;
  for (const title of document.querySelectorAll("h1, h2, h3, h4")) {
    if (Number(title.tagName[1]) > level + 1) found.push(`heading skips a level: ${name(title)}`);
    level = Number(title.tagName[1]);
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  const twice = ids.filter((id, place) => ids.indexOf(id) < place);
  if (twice.length) found.push(`ids twice: ${twice.slice(0, 3)}`);
  if (!document.documentElement.lang || !document.title) found.push("no language or no title");
  const light = (colour) => {
    const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.match(/[\d.]+/g).map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = new Set();
  for (const element of document.body.querySelectorAll(":not(svg *)")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !seen(element)) continue;
    let ground = element;
    while (ground && /, 0\)$|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
    const back = ground ? getComputedStyle(ground).backgroundColor : "rgb(255, 255, 255)";
    const [x, y] = [light(getComputedStyle(element).color), light(back)].sort((a, b) => b - a);
    if ((x + 0.05) / (y + 0.05) < 4.5) faint.add(`${((x + 0.05) / (y + 0.05)).toFixed(2)}: ${name(element)}`);
  }
  if (faint.size) found.push(`too faint, ${[...faint].slice(0, 3)}`);
  return found;
})()"""


def findings(browser: Browser, page: Path, root: Path, size: tuple[int, int] = DESK, dark: bool = False) -> list[str]:
    """What is wrong with a page of the site under `root`, shown in a window of that size."""
    browser.open(page, size=size, dark=dark)
    found = [f"console: {error}" for error in browser.errors]
    home = root.resolve().as_uri() + "/"
    found += [f"asks for {url[:90]}" for url in browser.requests if not url.startswith((home, "data:", "about:"))]
    return found + list(browser.run(_LOOK))


def violations(browser: Browser, axe: str) -> list[str]:
    """What axe-core (`axe`: its source) finds wrong with the page that is open, by rule, with the first place."""
    browser.run(f"{axe};0")
    script = """axe.run(document, { resultTypes: ["violations"], rules: { "target-size": { enabled: true } } })
        .then((told) => told.violations.map((of) =>
            `axe ${of.id}: ${of.help} (${of.nodes.length}, first ${of.nodes[0].target.join(" ")})`))"""
    return list(browser.run(script))


def dead_links(browser: Browser, root: Path, pages: list[Path]) -> list[str]:
    """Links, styles and scripts of the pages that lead to no file, or to no place in it."""
    places: dict[str, set[str]] = {}
    asked: list[tuple[Path, str]] = []
    for page in pages:
        browser.open(page)
        ids = browser.run("[...document.querySelectorAll('[id]')].map((element) => element.id)")
        places[page.resolve().as_uri()] = set(ids)
        script = "[...document.querySelectorAll('[href], script[src]')].map((element) => element.href || element.src)"
        asked += [(page, link) for link in browser.run(script) if isinstance(link, str)]  # of an SVG it is not text
    found = []
    for page, link in asked:
        url, fragment = urldefrag(link)
        if url.startswith("data:"):
            continue
        where = f"{page.relative_to(root)} links to {link}"
        if url.startswith(("https://", "http://")):  # somebody's page; nothing is loaded from there
            continue
        if not url.startswith(root.resolve().as_uri() + "/"):
            found.append(f"{where}, which lies elsewhere")
        elif not Path(unquote(url.removeprefix("file://"))).is_file():
            found.append(f"{where}, which is not there")
        elif fragment and fragment not in places.get(url, set()):
            found.append(f"{where}, which has no such place")
    return sorted(set(found))
