"""Who may change something."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("tornado")

from tornado.httputil import HTTPHeaders

from celery_concurrent.flower.guard import is_from_browser, why_foreign, why_no_controls

HOST = "flower.example:5555"


@pytest.mark.parametrize("name", ["Cookie", "Origin", "Referer", "Sec-Fetch-Site"])
def test_one_header_of_a_browser_is_enough_to_count_as_one(name: str) -> None:
    assert is_from_browser(HTTPHeaders({name.lower(): ""}))


def test_a_program_has_none_of_them() -> None:
    assert not is_from_browser(HTTPHeaders({"Authorization": "Basic eA==", "User-Agent": "curl"}))


@pytest.mark.parametrize(
    ("headers", "is_foreign"),
    [
        ({}, False),
        ({"Origin": f"http://{HOST}"}, False),
        ({"Origin": f"https://{HOST.upper()}"}, False),
        ({"Origin": "http://flower.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "http://evil.example"}, True),
        ({"Origin": f"http://{HOST}.evil.example"}, True),
        ({"Origin": f"http://{HOST}@evil.example"}, True),
        ({"Origin": "http://[bad"}, True),
        ({"Origin": ""}, True),
        ({"Referer": f"http://{HOST}/fleet?queue=a"}, False),
        ({"Referer": f"http://evil.example/{HOST}"}, True),
        ({"Origin": "http://evil.example", "Referer": f"http://{HOST}/"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": f"http://{HOST}"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
    ],
)
def test_a_page_of_another_origin_is_foreign(headers: dict[str, str], is_foreign: bool) -> None:
    assert (why_foreign(HTTPHeaders(headers), HOST) is not None) == is_foreign


def options(**given: Any) -> Any:
    return SimpleNamespace(**{"read_only": False, "basic_auth": [], "auth": "", **given})


def test_changes_need_a_login_or_an_api_that_is_opened_on_purpose() -> None:
    why = why_no_controls(options(), open_api=False)
    assert why is not None
    assert "--basic-auth=NAME:PASSWORD" in why
    assert why_no_controls(options(), open_api=True) is None
    assert why_no_controls(options(basic_auth=["a:b"]), open_api=False) is None
    assert why_no_controls(options(auth="a@b.example"), open_api=False) is None


def test_read_only_is_stronger_than_any_login() -> None:
    why = why_no_controls(options(read_only=True, basic_auth=["a:b"]), open_api=True)
    assert why is not None
    assert "--read-only" in why
