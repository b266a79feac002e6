"""The studio in Debian's Chromium, without a screen: what a person does there, and what must hold wherever they are.

This module does not know what is tested with it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from benchmarks.support.programs import require
from benchmarks.support.viewers import CHROMIUM_ARGUMENTS
from tests.support.running import REPOSITORY, Agent, RunningService

SECONDS = 90.0
DESKTOP, PHONE = (1280, 860), (360, 740)
_ARGUMENTS = (*CHROMIUM_ARGUMENTS, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""
_DROP = """([name, data]) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  return transfer;
}"""
_STORED = """async () => {
  const names = (await indexedDB.databases()).map((each) => each.name);
  return JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }, location.href, names]);
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser that reaches this machine alone. Raises ProgramsMissing."""
    require(Path(__file__).with_name("install-browser.sh"))
    # A busy machine is slow, not wrong.
    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(_ARGUMENTS))
        yield browser
        browser.close()


class Studio:
    """One page of the studio; `errors` are those of its scripts, `asked` every address it asked for."""

    def __init__(
        self, browser: Browser, service: RunningService, *, size: tuple[int, int] = DESKTOP, **options: Any
    ) -> None:
        """options : of Browser.new_context, as locale and color_scheme are."""
        width, height = size
        given = {"locale": "en-GB", "reduced_motion": "reduce", **options}
        self.context = browser.new_context(viewport={"width": width, "height": height}, **given)
        self.context.add_init_script(_WATCH)
        self.context.set_default_timeout(SECONDS * 1000)
        self.service = service
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page = self.context.new_page()
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, at: str = "") -> Page:
        """Open the page at a hash."""
        self.page.goto(f"{self.service.base_url}/studio{at}")
        return self.page

    def sign_in(self, agent: Agent | None = None, key: str = "", *, keep: bool = False) -> Page:
        """Open the page and sign in; key : in place of the agent's own."""
        who = agent or self.service.agent
        page = self.open()
        page.fill("#agent", who.agent_id)
        page.fill("#key", key or who.api_key)
        if keep:
            page.check("#keep")
        page.click(".sign-in button")
        return page

    def drop(self, picture: Path) -> None:
        """Drop a file onto the page."""
        transfer = self.page.evaluate_handle(_DROP, [picture.name, base64.b64encode(picture.read_bytes()).decode()])
        self.page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})

    def drawn(self) -> Locator:
        """Return the canvas once a mesh is drawn on it."""
        canvas = self.page.locator("canvas[data-drawn]").first
        canvas.wait_for()
        return canvas

    def pixels(self) -> NDArray[np.int32]:
        """Return the drawn canvas as it is on the screen, (h, w, 3)."""
        with Image.open(io.BytesIO(self.drawn().screenshot())) as image:
            return np.asarray(image.convert("RGB"), np.int32)

    def complaints(self) -> list[str]:
        """Return what axe finds wrong with the page as it is, by rule and place."""
        self.page.evaluate(_axe())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [f"{each['id']}: {[node['html'][:120] for node in each['nodes']]}" for each in found["violations"]]

    def fits(self) -> bool:
        """Return whether nothing reaches beyond the page's width."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))

    def check_and_close(self, *secrets: str) -> None:
        """See that no script failed, no policy was broken, nobody else was asked, and no secret left its place."""
        violations = self.page.evaluate("window.violations")
        kept = self.page.evaluate(_STORED)
        self.context.close()
        assert self.errors == []
        assert violations == []
        elsewhere = [url for url in self.asked if not url.startswith((f"{self.service.base_url}/", "blob:", "data:"))]
        assert elsewhere == []
        for secret in secrets:
            assert secret not in kept
            assert [url for url in self.asked if secret in url] == []


def share_of_blue(pixels: NDArray[np.int32]) -> float:
    """Return how much of a picture is blue."""
    return float((pixels[..., 2] > pixels[..., 0] + 50).mean())


@cache
def _axe() -> str:
    path = REPOSITORY / "build" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
    return path.read_text("utf-8") + "\n;0"
