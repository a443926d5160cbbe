"""The server of ``--metrics-port``: what it serves, where, and what is said when it cannot."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

pytest.importorskip("prometheus_client")


from celery_concurrent.errors import ConfigurationError, MissingExtraError
from celery_concurrent.metrics.serving import Metrics
from tests.unit.test_metrics_tally import fleet, said


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    """One of the host that is named "host"."""
    metrics = Metrics("127.0.0.1", 0, "host", ["q"])
    yield metrics
    metrics.close()


def scraped(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5.0) as answer:
        text: str = answer.read().decode()
    return text


def test_it_serves_its_fleets_and_its_own_process(metrics: Metrics) -> None:
    metrics.note(fleet({"demand": 2}, demand=7))
    told = scraped(metrics.url)
    assert 'celery_concurrent_fleet_demand{queue="q"} 7.0\n' in told
    assert "process_resident_memory_bytes " in told


def test_nodes_of_other_hosts_are_left_to_their_own_autoscalers(metrics: Metrics) -> None:
    metrics.note(fleet({}))
    for name in ("a@host", "b@other", "c", None, ["d@host"]):
        metrics.note({**said(slots=3), "hostname": name})
    assert 'celery_concurrent_fleet_slots{queue="q"} 3.0\n' in scraped(metrics.url)


def test_nodes_of_other_apps_are_left_to_their_own_autoscalers(metrics: Metrics) -> None:
    metrics.note(fleet({}))
    for queues in (["q"], ["theirs"], [["q"]], None):
        metrics.note(said(slots=3, name=f"{queues}@host", queues=queues))
    told = scraped(metrics.url)
    assert 'celery_concurrent_fleet_slots{queue="q"} 3.0\n' in told
    assert "theirs" not in told
    assert 'celery_concurrent_node_startup_seconds_count{queue="q"} 1.0\n' in told


def test_the_port_is_free_again_when_it_is_closed() -> None:
    metrics = Metrics("127.0.0.1", 0, "host", ["q"])
    metrics.close()
    with pytest.raises(urllib.error.URLError):
        scraped(metrics.url)
    port = int(metrics.url.rpartition(":")[2].partition("/")[0])
    Metrics("127.0.0.1", port, "host", ["q"]).close()


def test_a_taken_port_is_named_with_the_remedy() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"--metrics-port {port} .*another port"):
            Metrics("127.0.0.1", port, "host", ["q"])


@pytest.mark.parametrize("address", ["192.0.2.1", "no such host"])
def test_an_address_of_another_host_is_named_with_the_remedy(address: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"--metrics-address {address}: .*of this host"):
        Metrics(address, 0, "host", ["q"])


def test_it_serves_on_ipv6() -> None:
    try:
        metrics = Metrics("::1", 0, "host", ["q"])
    except ConfigurationError:
        pytest.skip("this host has no IPv6")
    try:
        assert "process_" in scraped(metrics.url)
    finally:
        metrics.close()


def test_without_prometheus_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r'pip install "celery-concurrent\[metrics\]"'):
        Metrics("127.0.0.1", 0, "host", ["q"])
