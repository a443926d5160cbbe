"""The settings of a node: what they are called, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from celery_concurrent import ConfigurationError
from celery_concurrent.settings import NodeSettings


def test_the_defaults_stand_without_settings(app: Any) -> None:
    assert NodeSettings.of(app) == NodeSettings()


def test_each_field_is_a_setting_of_the_app(app: Any) -> None:
    app.conf.update(
        concurrent_io_threads=2,
        concurrent_eta_limit=7,
        concurrent_reserve=2,
        concurrent_stuck_timeout=1.5,
        concurrent_batching=False,
        concurrent_redis_lease=30,
    )
    assert NodeSettings.of(app) == NodeSettings(
        io_threads=2, eta_limit=7, reserve=2, stuck_timeout=1.5, batching=False, redis_lease=30
    )


def test_celerys_own_limit_of_eta_inputs_goes_before(app: Any) -> None:
    app.conf.update(concurrent_eta_limit=7, worker_eta_task_limit=3)
    assert NodeSettings.of(app).eta_limit == 3


def test_no_eta_inputs_beside_the_slots_and_no_patience_are_values(app: Any) -> None:
    app.conf.update(concurrent_eta_limit=0, concurrent_stuck_timeout=0)
    assert (NodeSettings.of(app).eta_limit, NodeSettings.of(app).stuck_timeout) == (0, 0)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *(("io_threads", value, "an int, 1 or more") for value in (0, -1, 1.0, "4", True, None)),
        *(("eta_limit", value, "an int, 0 or more") for value in (-1, 1.5, "10", False)),
        *(("reserve", value, "an int, 0 or more") for value in (-1, 1.5, "1", True)),
        *(("stuck_timeout", value, "a number of seconds") for value in (-1, "60", True, None)),
        *(
            ("redis_lease", value, "a number of seconds, 1 or more")
            for value in (0, 0.5, "10", None)
        ),
        *(("batching", value, "True or False") for value in (0, 1, "yes", None)),
    ],
)
def test_a_bad_value_is_named_with_its_setting_and_the_rule(
    app: Any, name: str, value: Any, rule: str
) -> None:
    app.conf[f"concurrent_{name}"] = value
    with pytest.raises(ConfigurationError) as caught:
        NodeSettings.of(app)
    assert str(caught.value).startswith(f"concurrent_{name}={value!r} must be ")
    assert rule in str(caught.value)


def test_worker_eta_task_limit_is_named_when_it_is_what_is_wrong(app: Any) -> None:
    app.conf.worker_eta_task_limit = -1
    with pytest.raises(ConfigurationError, match="worker_eta_task_limit=-1"):
        NodeSettings.of(app)
