"""How heavy the studio is, and how soon it shows something: in Debian's Chromium with software WebGL, on this machine.

    python -m benchmarks.studio

A sample becomes a mesh of 100,000 coloured faces; then the page is opened anew some times. The pictures of
docs/studio.md and the README are taken on the way. This module does not know what the page does.
"""

from __future__ import annotations

import gzip
import os
import platform
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from backend.demo.local_service import AGENT_ID, DemoService, demo_service
from backend.studio.pages import page_files
from benchmarks.support.programs import require
from benchmarks.support.viewers import CHROMIUM_ARGUMENTS

REPOSITORY = Path(__file__).parents[1]
RESULT = REPOSITORY / "benchmarks" / "results" / "studio.md"
DOCS = REPOSITORY / "docs"
SAMPLES = REPOSITORY / "samples"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 780}
_ROUNDS = 5
_START_SECONDS = 300
_SETTLED = 1500
"""Milliseconds after which nothing on a page moves."""
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
_DRAWN = """async () => {
  const files = performance.getEntriesByType("resource").filter((entry) => entry.name.includes(".glb"));
  for (;;) {
    const canvas = document.querySelector("canvas[data-drawn]");
    if (canvas) return (Number(canvas.dataset.drawnAt) - files.at(-1).responseEnd) / 1000;
    await new Promise(requestAnimationFrame);
  }
}"""


def main() -> int:
    """Measure, and write the table."""
    require(REPOSITORY / "tests" / "support" / "install-browser.sh")
    with demo_service(os.environ) as service:
        service.wait_until_ready(_START_SECONDS)
        paints, draws, faces = _measure(service)
    RESULT.write_text(_table(paints, draws, faces))
    sys.stdout.write(RESULT.read_text())
    return 0


def _measure(service: DemoService) -> tuple[list[float], list[float], int]:
    """Return the seconds to the first paint and to the drawn mesh, of each round, and the mesh's faces."""
    paints, draws = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(CHROMIUM_ARGUMENTS))
        page = _sign_in(browser, service, viewport=DESKTOP)
        _send(page, "mug")
        page.wait_for_selector("canvas[data-drawn]")
        for _ in range(_ROUNDS):
            page.reload()
            page.wait_for_selector("canvas[data-drawn]")
            paints.append(page.evaluate(_PAINT))
            draws.append(page.evaluate(_DRAWN))
        faces = int(page.get_attribute("canvas", "data-drawn") or 0)
        page.wait_for_timeout(_SETTLED)
        _pictures(browser, service, page)
        browser.close()
    return paints, draws, faces


def _sign_in(browser: Browser, service: DemoService, **options: Any) -> Page:
    page = browser.new_context(reduced_motion="reduce", locale="en-GB", **options).new_page()
    page.set_default_timeout(_START_SECONDS * 1000)
    page.goto(f"{service.url}/studio")
    page.fill("#agent", AGENT_ID)
    page.fill("#key", service.api_key)
    page.check("#keep")
    page.click(".sign-in button")
    page.wait_for_selector(".drop")
    return page


def _send(page: Page, *samples: str) -> None:
    """Send samples on their way, from the page for it, once each is cut out."""
    page.set_input_files("#files", [SAMPLES / f"{name}.png" for name in samples])
    page.locator(".state.good").nth(len(samples) - 1).wait_for()
    page.click(".panel button.main")


def _pictures(browser: Browser, service: DemoService, page: Page) -> None:
    """Take the pictures of the documents; page : shows a mesh."""
    page.screenshot(path=DOCS / "studio_mesh.png")
    page.goto(f"{service.url}/studio#/")
    page.set_input_files("#files", [SAMPLES / "teapot.png", SAMPLES / "fish.png"])
    page.locator(".state.good").nth(1).wait_for()
    page.screenshot(path=DOCS / "studio_new.png")
    page.click(".panel button.main")
    page.locator(".cards .choose input").nth(2).wait_for(state="attached")
    for k in range(2):
        page.locator(".choose input").nth(k).check()
    page.click(".tray .main")
    page.locator("canvas[data-drawn]").nth(1).wait_for()
    page.wait_for_timeout(_SETTLED)
    page.screenshot(path=DOCS / "studio_compare.png")
    phone = _sign_in(browser, service, viewport=PHONE, color_scheme="dark", device_scale_factor=2)
    phone.goto(f"{service.url}/studio#/gallery")
    phone.locator(".cards a").last.click()
    phone.wait_for_selector("canvas[data-drawn]")
    phone.wait_for_timeout(_SETTLED)
    phone.screenshot(path=DOCS / "studio_phone.png")


def _table(paints: list[float], draws: list[float], faces: int) -> str:
    contents = [content for name, (content, _, _) in page_files().items() if " " not in name]
    packed = sum(len(gzip.compress(content)) for content in contents)
    rows = [
        ("all files of the page, gzipped", "350 kB", f"{packed / 1000:.0f} kB"),
        ("first paint", "1 s", _seconds(paints)),
        (f"a coloured mesh of {faces:,} faces drawn after its download", "1.5 s", _seconds(draws)),
    ]
    lines = "".join(f"| {what} | {asked} | {got} |\n" for what, asked, got in rows)
    return (
        "# The studio\n\n"
        f"`python -m benchmarks.studio`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores "
        f"({platform.machine()}), load {os.getloadavg()[0]:.0f}, Chromium with software WebGL; the median of "
        f"{_ROUNDS}, and the slowest.\n\n| what | at most | measured |\n|---|---|---|\n{lines}"
    )


def _seconds(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s ({max(values):.2f} s)"


if __name__ == "__main__":
    sys.exit(main())
