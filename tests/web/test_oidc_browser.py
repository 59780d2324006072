"""Chromium logs in by an identity provider on another site: cookies have to survive the way there and back."""

from __future__ import annotations

import pytest

from gateway.config.identity import Oidc
from gateway.config.page import Page
from tests.support.identity import serving
from tests.support.network.certificates import Authority
from tests.support.network.peers import free_port
from tests.web.conftest import Shown
from tests.web.live import served
from tests.web.test_browser import chromium

__all__ = ["chromium"]
pytestmark = [pytest.mark.full, pytest.mark.peers]


def test_a_login_at_another_site_leads_back_to_the_page_that_was_wanted(own: Shown, chromium, tmp_path) -> None:
    authority = Authority(tmp_path / "tls")
    with serving(authority.issue("login")) as provider:  # at https://localhost, the page at http://127.0.0.1: two sites
        port = free_port()
        oidc = Oidc(
            issuer=provider.url,
            client_id=provider.client_id,
            page_url=f"http://127.0.0.1:{port}",
            operators=("pacs-admins",),
            trust=authority.trust,
        )
        provider.secret = ""
        own.config = own.config.model_copy(update={"page": Page(oidc=oidc, port=port)})
        with served(own, port) as base:
            page = chromium.new_context(ignore_https_errors=True).new_page()
            page.goto(f"{base}/login?to=/queue")
            page.get_by_role("link", name="identity provider").click()
            page.wait_for_url(f"{base}/queue")
            assert "oidc:jane.doe" in page.inner_text("header")
            cookies = {one["name"]: one for one in page.context.cookies(base)}
            assert cookies["miad-gateway-session"]["sameSite"] == "Strict" and "miad-gateway-login" not in cookies
            page.get_by_role("button", name="Log out").click()
            page.wait_for_load_state()
            assert "Log in to act" in page.inner_text("header")
