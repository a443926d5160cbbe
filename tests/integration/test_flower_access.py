"""Who gets in, in each way that Flower can ask for a login; a real Flower each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx
import pytest

from tests.services.fixtures import MakeProject
from tests.services.flower import AUTH, LOGIN, Flower, StartFlower
from tests.services.oauth import OAuth
from tests.services.openapi import check
from tests.services.project import Broker, Project

APP = """
    from celery import Celery
    from celery_concurrent import concurrent

    app = Celery()

    @app.task(queue="q")
    @concurrent(max_inputs=2)
    def nothing(): ...
"""
#: Flower's own way in by GitHub, with another address for GitHub.
LOGIN_MODULE = """
    from flower.views.auth import GithubLoginHandler

    class Login(GithubLoginHandler):
        _OAUTH_AUTHORIZE_URL = "{url}/login/oauth/authorize"
        _OAUTH_ACCESS_TOKEN_URL = "{url}/login/oauth/access_token"

        @classmethod
        def _email_api_url(cls):
            return "{url}/api/v3/user/emails"
"""
PAGES = ("/fleet", "/fleet/data", "/fleet/data/fleet/q", "/fleet/data/node/n@h")
READS = ("/api/fleet", "/api/fleet/q", "/api/fleet/node/n@h", "/api/input/i/log?node=n@h")
CHANGES = (
    "/api/fleet/q",
    "/api/fleet/q/drain",
    "/api/fleet/q/resume",
    "/api/fleet/node/n@h/drain",
    "/api/fleet/node/n@h/stop",
    "/api/input/i/cancel",
)
CANCEL = "/api/input/some-id/cancel"
MODES = ("open", "basic", "oauth")


@pytest.fixture(scope="module")
def project(module_project: MakeProject, module_redis_broker: Broker) -> Project:
    return module_project(APP, broker=module_redis_broker)


@pytest.fixture(scope="module")
def oauth() -> Iterator[OAuth]:
    with OAuth("ann@shop.example") as running:
        yield running


ByMode = Callable[[str], Flower]


@pytest.fixture(scope="module")
def by_mode(project: Project, oauth: OAuth, module_flower: StartFlower) -> ByMode:
    """A Flower of each mode, started when it is asked for first."""
    module = LOGIN_MODULE.replace("\n    ", "\n").format(url=oauth.url)
    (project.folder / "shop_login.py").write_text(module)
    options: dict[str, tuple[str, ...]] = {
        "plain": (),
        "open": (),
        "basic": (f"--basic-auth={LOGIN}",),
        "oauth": (
            "--auth=ann@shop.example",
            "--auth-provider=shop_login.Login",
            "--oauth2_key=k",
            "--oauth2_secret=s",
            "--oauth2_redirect_uri=http://back/",
        ),
        "prefix": ("--url-prefix=ops/flower", "--read-only", f"--basic-auth={LOGIN}"),
    }

    @cache
    def start(mode: str) -> Flower:
        env = {"FLOWER_UNAUTHENTICATED_API": "1"} if mode == "open" else {}
        return module_flower(
            project, *options[mode], env={**env, "PYTHONPATH": str(project.folder)}
        )

    return start


@contextmanager
def client_of(flower: Flower, mode: str, oauth: OAuth) -> Iterator[httpx.Client]:
    """One that is logged in, and compares what the API answers with its description."""
    with flower.client(auth=AUTH if mode in ("basic", "prefix") else None) as client:
        if mode == "oauth":
            oauth.back_to = f"{flower.url}/login"
            answer = client.get("/login", follow_redirects=True)
            assert answer.status_code == 200, answer.text
            assert "user" in client.cookies
        client.event_hooks["response"].append(lambda answer: check(answer, flower.prefix))
        yield client


def error_of(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    error: str = answer.json()["error"]
    return error


def test_without_a_login_the_page_is_shown_and_the_api_asks_for_one(by_mode: ByMode) -> None:
    with by_mode("plain").client() as client:
        page = client.get("/fleet")
        assert (page.status_code, ">Fleet</a>" in page.text) == (200, True)
        data = client.get("/fleet/data")
        body = data.json()
        assert data.status_code == 200
        assert body["controls"] is False
        assert "--basic-auth" in body["why_no_controls"]
    with by_mode("plain").client() as client:  # without the cookie, as a program
        flowers = client.get("/api/workers")
        for answer in [client.get(path) for path in READS] + [client.post(p) for p in CHANGES]:
            check(answer)
            assert answer.status_code == flowers.status_code == 401
            assert answer.text == flowers.text
            assert answer.headers["content-type"] == flowers.headers["content-type"]


def test_flowers_own_pages_have_the_entry_and_go_on_as_before(by_mode: ByMode) -> None:
    with by_mode("plain").client() as client:
        for path in ("/", "/workers", "/tasks", "/broker"):
            page = client.get(path)
            assert page.status_code == 200, path
            assert page.text.count('href="/fleet"') == 1
        assert client.get("/nothing/here").status_code == 404
        assert client.get("/healthcheck").text == "OK"
        assert "flower_events_total" in client.get("/metrics").text


def test_a_page_loads_nothing_from_elsewhere_and_is_framed_by_nobody(by_mode: ByMode) -> None:
    with by_mode("plain").client() as client:
        headers = client.get("/fleet").headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-frame-options"] == "DENY"
        for path in ("/fleet", "/fleet/data", "/fleet/data/fleet/nix"):
            answer = client.get(path)
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_files_are_kept_by_their_content_and_nothing_else_is_served(by_mode: ByMode) -> None:
    with by_mode("plain").client() as client:
        page = client.get("/fleet").text
        place = page.index("/fleet/static/fleet.js?v=")
        kept = client.get(page[place : page.index('"', place)])
        assert (kept.status_code, kept.headers["content-type"]) == (200, "text/javascript")
        assert "max-age=315360000" in kept.headers["cache-control"]
        assert client.get("/fleet/static/fleet.js").headers["cache-control"] == "no-cache"
        for path in ("..%2fpages.py", "%2e%2e/pages.py", "", "nix.js"):
            assert client.get(f"/fleet/static/{path}").status_code in (403, 404), path


def test_a_basic_login_is_asked_for_everywhere(by_mode: ByMode) -> None:
    with by_mode("basic").client() as client:
        for path in PAGES:
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == 'Basic realm="flower"'
        wrong = [client.get(path, auth=("ann", "guess")) for path in (*PAGES, *READS)]
        assert {answer.status_code for answer in wrong} == {401}
        assert {client.get(path).status_code for path in READS} == {401}
        assert {client.post(path).status_code for path in CHANGES} == {401}
        assert client.get("/fleet", auth=AUTH).status_code == 200
        assert client.get("/fleet/data", auth=AUTH).json()["controls"] is True


def test_oauth_sends_to_its_login_and_comes_back(by_mode: ByMode, oauth: OAuth) -> None:
    flower = by_mode("oauth")
    with flower.client() as client:
        for path in (*PAGES, *READS):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["location"][:12]) == (302, "/login?next=")
        for path in CHANGES:
            assert client.post(path).status_code == 403
    with client_of(flower, "oauth", oauth) as client:
        assert client.get("/fleet").status_code == 200
        assert client.get("/fleet/data").json()["controls"] is True
        assert client.get("/api/fleet").status_code == 200


@pytest.mark.parametrize("mode", ["open", "basic"])
def test_a_program_with_the_login_needs_no_token(by_mode: ByMode, oauth: OAuth, mode: str) -> None:
    with client_of(by_mode(mode), mode, oauth) as client:
        assert client.get("/api/fleet").status_code == 200
        answer = client.post(CANCEL, json={})
        assert answer.json() == {"message": "input 'some-id' is being cancelled"}


@pytest.mark.parametrize("mode", MODES)
def test_a_browser_changes_nothing_without_the_token(
    by_mode: ByMode, oauth: OAuth, mode: str
) -> None:
    flower = by_mode(mode)
    with client_of(flower, mode, oauth) as client:
        client.get("/fleet")
        token = client.cookies["_xsrf"]
        other = "2|00000000|00000000000000000000000000000000|1700000000"
        for path in CHANGES:
            assert "X-XSRFToken" in error_of(client.post(path, json={}))
        for headers in ({"X-XSRFToken": other}, {"X-XSRFToken": ""}, {"X-XSRFToken": "x"}):
            assert client.post(CANCEL, json={}, headers=headers).status_code == 403
        # Neither in the body nor in the address, as a form could send it.
        assert client.post(f"{CANCEL}?_xsrf={token}").status_code == 403
        assert client.post(CANCEL, data={"_xsrf": token}).status_code == 403
        client.cookies.delete("_xsrf")
        ours = {"Origin": flower.origin, "X-XSRFToken": token}
        assert client.post(CANCEL, json={}, headers=ours).status_code == 403


@pytest.mark.parametrize("mode", MODES)
def test_a_page_of_another_origin_changes_nothing_even_with_the_token(
    by_mode: ByMode, oauth: OAuth, mode: str
) -> None:
    with client_of(by_mode(mode), mode, oauth) as client:
        client.get("/fleet")
        token = {"X-XSRFToken": client.cookies["_xsrf"]}
        for foreign in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Referer": "http://evil.example/"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            answer = client.post(CANCEL, json={}, headers={**token, **foreign})
            assert answer.status_code == 403
            assert "not sent by a page of this Flower" in error_of(answer)


@pytest.mark.parametrize("mode", MODES)
def test_the_page_changes_things_with_its_token(by_mode: ByMode, oauth: OAuth, mode: str) -> None:
    flower = by_mode(mode)
    with client_of(flower, mode, oauth) as client:
        client.get("/fleet")
        headers = {
            "X-XSRFToken": client.cookies["_xsrf"],
            "Origin": flower.origin,
            "Sec-Fetch-Site": "same-origin",
        }
        assert client.post(CANCEL, json={}, headers=headers).status_code == 200
        # Through everything that checks who asks, and on to what is asked.
        assert client.post("/api/fleet/q/drain", headers=headers).status_code == 404


def test_below_a_prefix_everything_has_it_and_read_only_changes_nothing(
    by_mode: ByMode, oauth: OAuth
) -> None:
    flower = by_mode("prefix")
    with client_of(flower, "prefix", oauth) as client:
        page = client.get("/fleet")
        assert page.status_code == 200
        assert 'href="/ops/flower/fleet"' in page.text
        assert "/ops/flower/fleet/static/fleet.js?v=" in page.text
        assert client.get("/fleet/static/fleet.js").status_code == 200
        body = client.get("/fleet/data").json()
        assert (body["controls"], "--read-only" in body["why_no_controls"]) == (False, True)
        assert client.get("/api/fleet").status_code == 200
        assert client.get("/api/fleet/q").status_code == 404
        client.cookies.clear()  # as a program
        for path in CHANGES:
            answer = client.post(path, json={})
            assert (answer.status_code, "--read-only" in error_of(answer)) == (403, True)
        assert httpx.get(f"{flower.origin}/fleet", auth=AUTH).status_code == 404


@pytest.mark.parametrize(
    ("request_", "status", "told"),
    [
        (("GET", "/api/fleet/nix"), 404, "no fleet 'nix' has been heard of"),
        (("GET", "/api/fleet/a%2Fb%3Cb%3E"), 404, "no fleet 'a/b<b>'"),
        (("GET", "/api/fleet/q?size=0"), 400, "size='0' must be a whole number in 1..500"),
        (("GET", "/api/fleet/q?state=%3Cb%3E"), 400, "state='<b>' must be one of"),
        (("GET", "/api/fleet/node/n@h"), 404, "no node 'n@h' has been heard of"),
        (("POST", "/api/fleet/node/drain"), 404, "no fleet 'node'"),
        (("GET", "/api/input/i/log"), 404, "name it by ?node=NAME"),
        (("POST", "/api/fleet/q/resume"), 404, "no fleet 'q'"),
        (("POST", "/api/fleet/node/n@h/stop"), 404, "no node 'n@h'"),
    ],
)
def test_what_cannot_be_answered_is_told_with_the_remedy(
    by_mode: ByMode, oauth: OAuth, request_: tuple[str, str], status: int, told: str
) -> None:
    with client_of(by_mode("open"), "open", oauth) as client:
        answer = client.request(*request_)
        assert answer.status_code == status
        assert told in error_of(answer)
        assert "<" not in answer.text


@pytest.mark.parametrize("body", [b"values=1", b"[]", b'{"values": {"max_nodes": "8"}}', b"{}"])
def test_a_body_that_is_no_change_is_told(by_mode: ByMode, oauth: OAuth, body: bytes) -> None:
    with client_of(by_mode("open"), "open", oauth) as client:
        answer = client.post("/api/fleet/q", content=body)
        assert answer.status_code == 400
        assert error_of(answer)


def test_refusals_leave_no_traceback_in_flowers_log(by_mode: ByMode, oauth: OAuth) -> None:
    flower = by_mode("open")
    with client_of(flower, "open", oauth) as client:
        answers: list[Any] = [client.get("/api/fleet/nix"), client.post("/api/fleet/q/drain")]
        assert {answer.status_code for answer in answers} == {404}
    assert "Traceback" not in flower.log()
