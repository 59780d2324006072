"""Chromium goes through the page: by keyboard, light and dark, on a desk and on a phone; axe looks at each.

MIAD_SCREENSHOTS names a folder in which the pictures stay, to be looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.audit import AuditLog
from gateway.config.models import Database
from gateway.database import DeliveryRow, transaction
from tests.conftest import missing
from tests.web.conftest import PASSWORD, Shown
from tests.web.live import served
from tests.web.viewed import answering, port_of, with_viewer

pytestmark = [pytest.mark.full, pytest.mark.peers]

AXE = "4.14.1"
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    program = shutil.which("chromium")
    if program is None:
        missing("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Debian's browser, not one that playwright would download; root may not use its sandbox.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, installed once."""
    folder = Path(os.environ.get("MIAD_PEERS", Path(__file__).parents[2] / ".venv" / "peers")) / f"axe-core-{AXE}"
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        if not shutil.which("npm"):
            missing("npm")
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        done = subprocess.run([*command, f"axe-core@{AXE}"], capture_output=True, text=True, timeout=240)
        if done.returncode != 0:
            missing(f"axe-core (npm install says: {done.stderr[-200:]})")
    return source.read_text("utf-8")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("MIAD_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_page(chromium, base: str, width: str = "desktop", scheme: str = "light"):
    """A page that fails the test when something is loaded from elsewhere or the console complains."""
    wide, high = WIDTHS[width]
    context = chromium.new_context(viewport={"width": wide, "height": high}, color_scheme=scheme, bypass_csp=False)
    page = context.new_page()
    page.complaints = []
    page.on("request", lambda request: request.url.startswith((base, "data:")) or page.complaints.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    return page


def look(page, axe: str, picture: Path) -> list[str]:
    """Take a picture, and tell what is wrong with the page as it stands."""
    page.screenshot(path=picture, full_page=True)
    wrong = [f"console: {text}" for text in page.complaints if "the server responded with a status" not in text]
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        wrong.append("it is wider than the screen")
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    wrong += [
        f"axe {one['impact']} {one['id']}: {one['nodes'][0]['html'][:160]}" for one in found if one["impact"] in SERIOUS
    ]
    return [f"{picture.stem}: {text}" for text in wrong]


def log_in(page, base: str) -> None:
    page.goto(f"{base}/login")
    page.get_by_label("Name").fill("ops")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()


def places_of(shown: Shown) -> dict[str, str]:
    """Name of a picture -> page."""
    return {
        "flow": "/", "queue": "/queue", "held": "/queue?state=held", "requests": "/requests", "audit": "/audit",
        "studies": "/studies", "study": "/studies/1.2.3.1", "marks": "/marks", "restores": "/restores",
        "configuration": "/configuration", "instance-held": f"/instances/{shown.ids['refused']}",
        "instance-failing": f"/instances/{shown.ids['failing']}", "not-found": "/nothing", "login": "/login",
    }  # fmt: skip


def test_nothing_is_cut_off_where_a_desk_is_zoomed_to_400_percent(acting: Shown, chromium, pictures: Path) -> None:
    """1280 points at 400 % are 320 (WCAG 1.4.10)."""
    wide = []
    with served(acting) as base:
        page = open_page(chromium, base)
        page.set_viewport_size({"width": 320, "height": 256})
        log_in(page, base)
        for name, place in places_of(acting).items():
            page.goto(base + place)
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            page.screenshot(path=pictures / f"{name}-zoomed.png", full_page=True)
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wide.append(name)
        page.context.close()
    assert wide == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_as_a_person_sees_it(acting: Shown, chromium, axe, pictures: Path, width: str, scheme: str) -> None:
    failing, places = acting.ids["failing"], places_of(acting)
    wrong = []
    log = AuditLog(acting.config.site.state / "audit" / "restore.jsonl")
    log.write("original-restored", "success", calling_ae="READER", bit_exact=True, sop_instance_uid="1.2.826.0.1.99.1")
    log.write("restore-refused", "refused", calling_ae="OTHER", peer_address="10.0.0.9", reason="study-not-in-scope")
    acting = with_viewer(acting)
    with served(acting) as base, answering(port_of(acting)):
        page = open_page(chromium, base, width, scheme)
        for name, place in places.items():
            page.goto(base + place)
            wrong += look(page, axe, pictures / f"{name}-{scheme}-{width}.png")
        log_in(page, base)
        places["together"] = "/queue?state=held&route=relay"
        for name in ("flow", "instance-held", "instance-failing", "together"):
            page.goto(base + places[name])
            if name == "together":
                page.locator(".together summary").click()
            wrong += look(page, axe, pictures / f"{name}-operator-{scheme}-{width}.png")
        for name in ("both", "difference", "zones"):
            page.goto(f"{base}/instances/{failing}/view?view={name}")
            assert page.locator("figure img").evaluate_all("all => all.every(one => one.naturalWidth === 64)")
            wrong += look(page, axe, pictures / f"view-{name}-{scheme}-{width}.png")
        page.goto(base + "/configuration")
        for summary in page.locator("summary").all():
            if summary.evaluate("one => !one.parentElement.open"):
                summary.click()
        wrong += look(page, axe, pictures / f"configuration-open-{scheme}-{width}.png")
        page.context.close()
    assert wrong == []


def test_an_operator_s_way_by_keyboard_alone(acting: Shown, chromium, axe, pictures: Path) -> None:
    with served(acting) as base:
        page = open_page(chromium, base)
        page.goto(base)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.goto(f"{base}/login?to=/instances/{acting.ids['held']}")
        focus(page, "Name")
        page.keyboard.type("ops")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{base}/instances/{acting.ids['held']}")
        focus(page, "Release it")
        page.keyboard.press("Enter")
        page.get_by_text("Done: release changed 1 instance").wait_for(timeout=20_000)
        assert look(page, axe, pictures / "requests-done.png") == []
        assert acting.flow.row(acting.ids["held"]).state == "received"
        page.context.close()


def test_to_discard_the_id_has_to_be_typed(acting: Shown, chromium, axe, pictures: Path) -> None:
    one = acting.ids["refused"]
    with transaction(acting.flow.engine) as session:  # however long the tests before took
        waits = update(DeliveryRow).where(DeliveryRow.instance_id == acting.ids["failing"])
        session.execute(waits.values(next_attempt_at=time.time() + 600))
    with served(acting) as base:
        page = open_page(chromium, base)
        log_in(page, base)
        page.goto(f"{base}/instances/{one}")
        page.get_by_label("To do so, type").fill("yes")
        page.get_by_role("button", name="Discard it").click()
        page.get_by_text("its whole id has to be typed").wait_for()
        assert look(page, axe, pictures / "not-confirmed.png") == []
        assert acting.flow.row(one).state == "held"
        page.goto(f"{base}/instances/{one}")
        page.get_by_label("To do so, type").fill(one)
        page.get_by_role("button", name="Discard it").click()
        page.get_by_text("Done: discard changed 1 instance").wait_for(timeout=20_000)
        assert acting.flow.row(one).state == "discarded"
        page.goto(base)
        page.get_by_role("button", name="Try again now").click()
        page.get_by_text("Done: retry changed 1 instance").wait_for(timeout=20_000)
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("link", name="Log in to act").wait_for()
        page.context.close()


def test_all_of_it_works_without_javascript(acting: Shown, chromium) -> None:
    with served(acting) as base:
        page = chromium.new_context(java_script_enabled=False).new_page()
        log_in(page, base)
        page.goto(f"{base}/queue?state=held")
        page.get_by_role("link", name=acting.ids["held"][:12]).click()
        page.get_by_role("button", name="Release it").click()
        page.get_by_text("Done: release changed 1 instance").wait_for(timeout=20_000)  # it comes again by itself
        page.goto(f"{base}/configuration")
        page.locator("summary").nth(4).click()  # browsers open these by themselves
        page.locator("details").nth(4).locator("table").wait_for()
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("link", name="Log in to act").wait_for()
        page.context.close()


def test_the_viewer_by_keyboard_alone_and_without_a_worker(acting: Shown, chromium, axe, pictures: Path) -> None:
    acting = with_viewer(acting)
    with served(acting) as base:
        page = open_page(chromium, base, "phone")
        with answering(port_of(acting)):
            log_in(page, base)
            page.goto(f"{base}/instances/{acting.ids['failing']}")
            focus(page, "See it before and after its mark")
            page.keyboard.press("Enter")
            page.get_by_alt_text("The marked copy").wait_for()
            focus(page, "Window center")
            page.keyboard.type("0")
            page.keyboard.press("Tab")
            page.keyboard.type("2000")
            page.keyboard.press("Enter")
            page.get_by_text("window 0 / 2000").first.wait_for()
        page.reload()
        page.get_by_text("No worker of this machine shows pictures").wait_for()
        assert look(page, axe, pictures / "view-no-worker.png") == []
        page.context.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_the_database_it_says_so(acting: Shown, chromium, axe, pictures: Path, scheme: str) -> None:
    url = "postgresql+psycopg://page@127.0.0.1:9/gateway"
    away = Shown(acting.flow, acting.config, acting.client, acting.ids)
    away.config = acting.config.model_copy(update={"database": Database(url=url)})
    with served(away) as base:
        page = open_page(chromium, base, "phone", scheme)
        page.goto(base)
        assert page.get_by_role("heading", level=1).text_content() == "The database does not answer"
        assert look(page, axe, pictures / f"database-{scheme}.png") == []
        page.context.close()


def focus(page, name: str) -> None:
    """Press Tab until what is so labelled has the focus, as somebody does who uses no mouse."""
    for _ in range(60):
        page.keyboard.press("Tab")
        text = page.evaluate(
            "(e => e.labels?.length ? e.labels[0].textContent : e.textContent)(document.activeElement)"
        )
        if (text or "").strip() == name:
            return
    pytest.fail(f"no Tab leads to {name}")
