"""The studio in a browser: from a dropped picture to files that others open, and what may go wrong on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trimesh
from PIL import Image
from playwright.sync_api import Browser, Route, expect

from backend.config import Settings
from backend.studio.invitation import invite, studio_agent
from benchmarks.support.programs import require
from tests.support import studio as studio_support
from tests.support.faults.fake_worker import STEP_SECONDS
from tests.support.faults.harness import FAKE_SERVICE
from tests.support.running import REPOSITORY, RunningService
from tests.support.studio import PHONE, Studio, chromium, share_of_blue
from tests.support.watched import WatchedService, png

MUG = REPOSITORY / "samples" / "mug.png"
DOWNLOADED = ("glb", "stl", "obj", "ply", "3mf")
IS_THERE = """address => new Promise((done) => {
  const image = new Image();
  image.onload = () => done(true);
  image.onerror = () => done(false);
  image.src = address;
})"""
KEPT_KEYS = """() => new Promise((done) => {
  const opening = indexedDB.open("orfeas-studio", 1);
  opening.onsuccess = () => {
    const counting = opening.result.transaction("credentials").objectStore("credentials").count();
    counting.onsuccess = () => (opening.result.close(), done(counting.result));
  };
})"""


class SlowService(RunningService):
    """A service whose model is a fake that takes its time."""

    command = FAKE_SERVICE


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def test_a_dropped_picture_becomes_a_mesh_that_is_turned_and_downloaded(
    browser: Browser, service: WatchedService, tmp_path: Path
) -> None:
    studio = Studio(browser, service)
    page = studio.sign_in(key="a key that is nobody's, of some length")
    expect(page.get_by_role("alert")).to_contain_text("the key is wrong")
    assert studio.complaints() == []
    studio.sign_in(keep=True)
    studio.drop(MUG)
    expect(page.get_by_text("Cut out cleanly")).to_be_visible()
    page.get_by_text("Options").click()
    page.get_by_label("Quality").fill("1")
    assert studio.complaints() == []
    page.get_by_role("button", name="Make the mesh").click()
    before = studio.pixels()
    assert share_of_blue(before) > 0.05
    expect(page.get_by_role("heading", name="mug")).to_be_visible()
    assert studio.complaints() == []
    page.keyboard.press("Escape")
    studio.drawn().focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(300)
    assert (studio.pixels() != before).any(axis=2).mean() > 0.02
    page.get_by_text("Clay").click()
    page.wait_for_timeout(300)
    assert share_of_blue(studio.pixels()) < 0.01
    for format in DOWNLOADED:
        with page.expect_download() as waited:
            page.get_by_role("button", name=f"Download {format.upper()}").click()
        path = tmp_path / waited.value.suggested_filename
        waited.value.save_as(path)
        assert len(trimesh.load_mesh(path).faces) > 1000
    page.reload()
    assert share_of_blue(studio.pixels()) > 0.05
    studio.check_and_close(service.agent.api_key)
    assert service.agent.api_key not in service.log


def test_signing_out_leaves_nothing_of_who_was_signed_in(browser: Browser, service: WatchedService) -> None:
    studio = Studio(browser, service)
    page = studio.sign_in(keep=True)
    studio.drop(MUG)
    page.get_by_text("Options").click()
    page.get_by_label("Quality").fill("1")
    page.get_by_role("button", name="Make the mesh").click()
    studio.drawn()
    page.get_by_role("link", name="Gallery").click()
    picture = page.locator("main img[src^='blob:']").first
    picture.wait_for()
    address = picture.get_attribute("src")
    assert (page.evaluate(IS_THERE, address), page.evaluate(KEPT_KEYS)) == (True, 1)
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#key")).to_be_visible()
    assert (page.evaluate(IS_THERE, address), page.evaluate(KEPT_KEYS)) == (False, 0)
    assert page.locator("main img, main canvas").count() == 0
    page.reload()
    expect(page.locator("#key")).to_be_visible()
    studio.check_and_close(service.agent.api_key)


def test_a_phone_in_german_by_keyboard_alone(browser: Browser, service: WatchedService) -> None:
    studio = Studio(browser, service, size=PHONE, locale="de-DE", color_scheme="dark")
    page = studio.open()
    page.get_by_label("Agent").focus()
    page.keyboard.type(service.agent.agent_id)
    page.keyboard.press("Tab")
    page.keyboard.type(service.agent.api_key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Aus einem Bild wird ein Körper")).to_be_visible()
    assert studio.fits()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Bilder wählen").focus()
        page.keyboard.press("Enter")
    chooser.value.set_files([MUG, REPOSITORY / "samples" / "star.png"])
    expect(page.get_by_text("Sauber freigestellt")).to_have_count(2)
    assert studio.fits()
    page.get_by_role("button", name="2 Netze erzeugen").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("checkbox").nth(1)).to_be_visible()
    assert studio.fits()
    assert studio.complaints() == []
    for box in page.get_by_role("checkbox").all()[:2]:
        box.focus()
        page.keyboard.press("Space")
    page.get_by_role("button", name="2 vergleichen").focus()
    page.keyboard.press("Enter")
    expect(page.locator("canvas[data-drawn]")).to_have_count(2)
    assert studio.fits()
    assert studio.complaints() == []
    studio.check_and_close(service.agent.api_key)


def test_a_job_outlives_its_service_and_another_is_cancelled(browser: Browser, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"LEASE_SECONDS": 5, "SWEEP_SECONDS": 1, STEP_SECONDS: 0.2}
    service = SlowService(tmp_path, **settings)
    service.start()
    try:
        studio = Studio(browser, service)
        page = studio.open(invite(Settings(data_dir=service.data, port=service.port)).partition("/studio")[2])
        expect(page.locator(".drop")).to_be_visible()
        assert page.url == f"{service.base_url}/studio"
        for k in range(2):
            page.goto(f"{service.base_url}/studio#/")
            studio.drop(MUG)
            page.get_by_role("button", name="Make the mesh").click()
            page.wait_for_url(re.compile("#/job/"))
            expect(page.locator("progress")).to_be_visible()
            if k == 0:
                service.kill()
                expect(page.get_by_text("The service does not answer")).to_be_visible()
                service.start()
                studio.drawn()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_text("Cancelled", exact=True)).to_be_visible()
        assert studio.complaints() == []
        key = studio_agent(service.agents_file).api_key
        studio.check_and_close(key)
        assert key not in service.log
    finally:
        service.kill()


def test_pictures_that_cannot_be_made_are_named_before_they_are_sent(
    browser: Browser, service: WatchedService, tmp_path: Path
) -> None:
    (tmp_path / "half.png").write_bytes(png(Image.new("RGB", (64, 64), "white"))[:-30])
    (tmp_path / "plain.png").write_bytes(png(Image.new("RGB", (64, 64), "white")))
    studio = Studio(browser, service)
    page = studio.sign_in()
    expect(page.locator(".drop")).to_be_visible()
    page.set_input_files("#files", [tmp_path / "half.png", tmp_path / "plain.png"])
    expect(page.locator(".state.bad")).to_have_count(1)
    expect(page.locator("p.state", has_text="No object was found in the picture")).to_be_visible()
    page.get_by_role("button", name="Remove plain.png").click()
    expect(page.get_by_role("button", name="Make the mesh")).to_be_hidden()
    studio.check_and_close(service.agent.api_key)


def test_what_is_copied_for_programs_runs_as_it_is(browser: Browser, service: WatchedService, tmp_path: Path) -> None:
    require(Path(studio_support.__file__).with_name("install-recipe-tools.sh"))
    label = "it's a $HOME `mug`"
    fields: dict[str, Any] = {"quality": 1, "steps": 10, "seed": 7, "scale_mm": 42.5, "format": "stl", "label": label}
    made = service.generate(MUG.read_bytes(), **fields).json()
    studio = Studio(browser, service, permissions=["clipboard-read", "clipboard-write"])
    page = studio.sign_in()
    expect(page.locator(".drop")).to_be_visible()
    page.goto(f"{service.base_url}/studio#/job/{made['job_id']}")
    page.get_by_text("For programs").click()
    copied = []
    for name in ("curl", "Python"):
        page.get_by_role("button", name=f"Copy as {name}").click()
        expect(page.get_by_text(f"Copied as {name}.")).to_be_visible()
        copied.append(page.evaluate("navigator.clipboard.readText()"))
    shutil.copy(MUG, tmp_path / service.status(made["job_id"])["filename"])
    environment = {**os.environ, "ORFEAS_API_KEY": service.agent.api_key, "PYTHONPATH": str(REPOSITORY)}
    run = partial(subprocess.run, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    again = json.loads(run(["/bin/bash", "-c", copied[0]]).stdout)
    assert service.wait(again["job_id"])["status"] == "completed"
    run([sys.executable, "-c", copied[1]])
    bounds = trimesh.load_mesh(tmp_path / "mesh.stl").extents
    assert max(bounds) == pytest.approx(42.5, rel=1e-3)
    for job in (service.status(again["job_id"]), *service.get("/jobs?limit=1").json()["jobs"]):
        assert (job["request"]["seed"], job["request"]["quality"], job["request"]["scale_mm"]) == (7, 1, 42.5)
    studio.check_and_close(service.agent.api_key)


def test_candidates_are_looked_at_one_by_one_and_side_by_side(browser: Browser, service: WatchedService) -> None:
    made = service.generate(MUG.read_bytes(), quality=1, steps=10).json()
    studio = Studio(browser, service)

    def with_candidates(route: Route) -> None:
        """Answer as a service does that kept three meshes: here they are one file under three numbers."""
        job = route.fetch().json()
        job["files"] = [{**file, "candidate": k} for k in range(3) for file in job["files"][:1]]
        job["metadata"]["candidates"] = [{"seed": 7 + k, "silhouette_iou": 0.9 - k / 10} for k in range(3)]
        route.fulfill(json=job)

    studio.context.route(f"**/status/{made['job_id']}*", with_candidates)
    page = studio.sign_in()
    expect(page.locator(".drop")).to_be_visible()
    page.goto(f"{service.base_url}/studio#/job/{made['job_id']}")
    studio.drawn()
    third = page.get_by_role("button", name="Candidate 3 · Seed 9 · 70 % of the outline")
    third.click()
    expect(third).to_have_attribute("aria-pressed", "true")
    assert studio.complaints() == []
    page.get_by_role("link", name="Candidates side by side").click()
    expect(page.locator("canvas[data-drawn]")).to_have_count(3)
    assert studio.complaints() == []
    studio.check_and_close(service.agent.api_key)


def test_the_api_s_page_sends_signed_calls_with_and_without_a_form(browser: Browser, service: WatchedService) -> None:
    studio = Studio(browser, service)
    page = studio.page
    page.goto(f"{service.base_url}/docs")
    page.fill("#agent", service.agent.agent_id)
    page.fill("#key", service.agent.api_key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text(f"Calls are signed as {service.agent.agent_id}")).to_be_visible()
    for path, status in (("/api/agent/me", "200"), ("/api/agent/cutout", "200"), ("/api/agent/generate-3d", "202")):
        call = page.locator(".opblock", has=page.locator(f'[data-path="{path}"]'))
        call.locator(".opblock-summary-control").click()
        if status == "202":
            expect(call.get_by_role("row", name="quality 1 to 10 7", exact=True)).to_be_visible()
            expect(
                call.get_by_role("row", name="QUEUE_FULL The queue is full; try again later.", exact=True)
            ).to_be_visible()
            call.get_by_role("combobox", name="async", exact=True).select_option("true")
        if path != "/api/agent/me":
            call.get_by_label("image", exact=True).set_input_files(MUG)
        call.get_by_role("button", name="Execute").click()
        expect(call.locator(".live-responses-table .response .response-col_status")).to_contain_text(status)
    assert studio.complaints() == []
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#agent")).to_be_visible()
    expect(page.locator(".live-responses-table")).to_have_count(0)
    studio.check_and_close(service.agent.api_key)
