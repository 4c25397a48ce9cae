"""The overview page in a real browser, served under its own policy: Debian's package `chromium`, or Chrome.

The browser is driven over a pipe (the Chrome DevTools Protocol), so that no driver has to fit its version.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from reconciler.telling import page
from reconciler.telling.page import Asked
from tests.sample_standing import NOW, Sample, a_sample

HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=\"document.title='owned'\"> \u202e {{ 7 * 7 }}"
PHONE, DESK = (360, 740), (1280, 900)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason="no browser: neither chromium nor google-chrome is installed, and only one can tell how the page looks "
    "(Debian: apt-get install chromium)",
)

#: Texts and what is behind them, by the formula of WCAG 2.2: the lowest contrast, and where it is.
CONTRAST = """(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let lowest = [21, ""];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !e.checkVisibility()) continue;
    const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < lowest[0]) lowest = [ratio, texts.currentNode.data.trim()];
  }
  return lowest;
})()"""


class Browser:
    """One tab of a browser without a window."""

    def __init__(self, folder: Path) -> None:
        assert BROWSER is not None
        ours, theirs = os.pipe(), os.pipe()
        # It reads commands from descriptor 3, and writes answers to 4.
        command = [
            "bash", "-c", f'exec "$0" "$@" 3<&{ours[0]} 4>&{theirs[1]}', BROWSER, "--headless", "--no-sandbox",
            "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command,
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(folder)},
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._commands = os.fdopen(ours[1], "wb")
        self._answers = os.fdopen(theirs[0], "rb")
        self._number, self._rest, self._session = 0, b"", ""
        self.seen: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command, and its answer. What happens meanwhile is kept in `seen`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        number = self._number
        while (answer := self._next()).get("id") != number:
            self.seen.append(answer)
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = self._answers.read1(65536)
            assert read, "the browser has ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def show(self, url: str, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
        """Goes there, and waits until it is loaded."""
        self.seen.clear()
        self("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.seen):
            self.seen.append(self._next())

    def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression comes to in the page."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def picture(self, file: Path) -> None:
        """The whole page as an image."""
        taken = self("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(taken["data"]))

    @property
    def complaints(self) -> list[str]:
        """What the browser's console says: above all, what the policy has refused."""
        entries = [event["params"] for event in self.seen if event.get("method") == "Log.entryAdded"]
        errors = [event["params"] for event in self.seen if event.get("method") == "Runtime.exceptionThrown"]
        return [entry["entry"]["text"] for entry in entries] + [str(error) for error in errors]

    @property
    def requests(self) -> list[str]:
        """The addresses that the page has asked for."""
        events = (event["params"] for event in self.seen if event.get("method") == "Network.requestWillBeSent")
        return [event["request"]["url"] for event in events]

    def close(self) -> None:
        self._session = ""
        with suppress(AssertionError, BrokenPipeError):
            self("Browser.close")
        self._commands.close()
        self._answers.close()
        self._process.wait(20)


class Server:
    """The page over HTTP, with the headers that it wants."""

    def __init__(self, sample: Sample) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown = page.render(*sample, NOW, Asked.of(urlsplit(self.path).query))
                self.send_response(200)
                self.send_header("Content-Type", page.CONTENT_TYPE)
                self.send_header("Content-Security-Policy", page.CSP)
                self.send_header("Content-Length", str(len(shown)))
                self.end_headers()
                self.wfile.write(shown)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


@pytest.fixture(scope="module", params=["plain", "hostile"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page with data as they should be, and with data as somebody may have made them."""
    words = "" if request.param == "plain" else HOSTILE
    server = Server(a_sample(tmp_path_factory.mktemp("specs"), words))
    yield server.url
    server.close()


@pytest.mark.parametrize("query", ["", "?model=churn", "?model=%3Cscript%3E&environment=%22%3E"])
def test_it_needs_nothing_but_itself_and_runs_nothing(browser: Browser, url: str, query: str) -> None:
    browser.show(url + query)
    assert browser.complaints == []
    assert {urlsplit(request).scheme for request in browser.requests} <= {"http", "data"}
    assert [request for request in browser.requests if request.startswith("http")] == [url + query]
    assert "Trueup" in browser.evaluate("document.title")
    assert browser.evaluate("document.scripts.length + document.images.length") == 0
    assert browser.evaluate("getComputedStyle(document.querySelector('button')).borderRadius") == "6px", "has its style"


@pytest.mark.parametrize("query", ["", "?model=churn"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_screen(browser: Browser, url: str, size: tuple[int, int], query: str) -> None:
    browser.show(url + query, size)
    browser.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    right = "Math.max(...[...document.querySelectorAll('main *')].map(e => e.getBoundingClientRect().right))"
    assert browser.evaluate(right) <= size[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_both_schemes(browser: Browser, url: str, scheme: str) -> None:
    browser.show(f"{url}?model=churn", scheme=scheme)
    browser.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    ratio, text = browser.evaluate(CONTRAST)
    assert ratio >= 4.5, f"{text!r} has a contrast of {ratio:.2f}"
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


def test_whoever_hears_it_finds_headings_tables_and_names(browser: Browser, url: str) -> None:
    browser.show(f"{url}?model=churn")
    levels = browser.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    assert browser.evaluate("document.documentElement.lang") == "en"
    assert browser.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    nameless = "[...document.querySelectorAll('input')].filter(e => !e.labels.length).length"
    assert browser.evaluate(nameless) == 0
    sparks = "[...document.querySelectorAll('svg:not([aria-hidden])')].every(e => e.getAttribute('aria-label'))"
    assert browser.evaluate(sparks)
    double = "(ids => ids.length - new Set(ids).size)([...document.querySelectorAll('[id]')].map(e => e.id))"
    assert browser.evaluate(double) == 0


def test_a_person_can_ask_for_one_model(browser: Browser, url: str) -> None:
    browser.show(url)
    browser.evaluate("document.querySelector('#model').value = 'fraud'")
    browser.seen.clear()
    browser.evaluate("document.querySelector('form').submit()")
    while not any(event.get("method") == "Page.loadEventFired" for event in browser.seen):
        browser.seen.append(browser._next())
    assert browser.complaints == []
    assert browser.evaluate("location.search") == "?model=fraud&environment="
    assert browser.evaluate("document.querySelectorAll('article.model').length") == 1
