"""The dashboard, the alerts and the reference name what is really exposed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")


from celery_concurrent.metrics.catalogue import CATALOGUE, PREFIX
from celery_concurrent.metrics.collector import FLEET_STATES
from celery_concurrent.metrics.tally import CAUSES
from celery_concurrent.metrics.totals import STARTUP_BUCKETS
from celery_concurrent.pool.timing import BUCKETS
from tests.services.pages import blocks

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "reference" / "metrics.md"
HOW_TO = DOCS / "how-to" / "monitor.md"
DASHBOARD: dict[str, Any] = json.loads((DOCS / "how-to" / "grafana.json").read_text())

#: The labels of each sample, those of its target included, which Prometheus adds.
LABELS = {
    name: {*about.labels, *more, "job", "instance"}
    for about in CATALOGUE
    for name, more in (
        [(about.name, ())]
        if about.kind != "histogram"
        else [
            (f"{about.name}_bucket", ("le",)),
            (f"{about.name}_sum", ()),
            (f"{about.name}_count", ()),
        ]
    )
}
#: What a label may be compared with.
VALUES = {
    "state": {*FLEET_STATES, "starting", "ready", "draining"},
    "cause": set(CAUSES),
    "outcome": {"succeeded", "failed", "retried", "cancelled", "rejected", "ignored", "lost"},
}

_SELECTOR = re.compile(rf"{PREFIX}(?P<name>\w+)(?:{{(?P<matchers>[^}}]*)}})?")
_MATCHER = re.compile(r'(?P<label>\w+)\s*[=!]~?\s*"(?P<value>[^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on)\s*\((?P<labels>[^)]*)\)")
_LEGEND = re.compile(r"{{\s*(?:\$labels\.)?(?P<label>\w+)\s*}}")


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard and of the how-to, and the text that names labels of it."""
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]
    text = HOW_TO.read_text()
    for query in re.findall(rf"`([^`\n]*{PREFIX}[^`\n]*)`", text):
        yield query, ""
    (alerts,) = (block.text for block in blocks(HOW_TO) if block.file == "alerts.yml")
    for rule in alerts.split("- alert: ")[1:]:
        query, _, annotations = rule.partition("annotations:")
        yield query, annotations


QUERIES = list(queries())


def check(query: str, legend: str) -> None:
    """AssertionError if it asks for what is not exposed."""
    known: set[str] = set()
    for found in _SELECTOR.finditer(query):
        assert found["name"] in LABELS, query
        labels = LABELS[found["name"]]
        known |= labels
        for matcher in _MATCHER.finditer(found["matchers"] or ""):
            assert matcher["label"] in labels, query
            values = VALUES.get(matcher["label"])
            assert values is None or values >= set(matcher["value"].split("|")), query
    grouped = {
        label.strip() for group in _GROUPING.finditer(query) for label in group["labels"].split(",")
    }
    assert known, query
    assert grouped <= known, query
    shown = {label["label"] for label in _LEGEND.finditer(legend)}
    assert shown <= (grouped or known), f"{legend} of {query}"


@pytest.mark.parametrize(("query", "legend"), QUERIES, ids=[query for query, _ in QUERIES])
def test_what_is_asked_for_is_exposed(query: str, legend: str) -> None:
    check(query, legend)


@pytest.mark.parametrize(
    ("query", "legend"),
    [
        (f"{PREFIX}fleet_nodez", ""),
        (f"{PREFIX}task_run_seconds", ""),
        (f'{PREFIX}fleet_nodes{{task="t"}}', ""),
        (f'{PREFIX}fleet_state{{state=~"held|halted"}}', ""),
        (f"sum by (task) ({PREFIX}fleet_nodes)", ""),
        (f"sum by (queue) ({PREFIX}fleet_nodes)", "{{state}}"),
        ("up", ""),
    ],
)
def test_what_is_not_exposed_would_be_found(query: str, legend: str) -> None:
    with pytest.raises(AssertionError):
        check(query, legend)


def test_there_are_queries_to_look_at() -> None:
    assert len(list(panels())) >= 12
    assert len(QUERIES) > 35


def test_the_variables_of_the_dashboard_are_labels_of_what_they_ask() -> None:
    source, *variables = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert [variable["name"] for variable in variables] == ["queue", "task"]
    for variable in variables:
        asked = rf"label_values\({PREFIX}(\w+), {variable['name']}\)"
        found = re.fullmatch(asked, variable["query"]["query"])
        assert found is not None
        assert variable["name"] in LABELS[found[1]]


def test_every_query_goes_to_the_chosen_source_and_heeds_the_variables() -> None:
    for each in (*panels(), *DASHBOARD["templating"]["list"][1:]):
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in each.get("targets", ()):
            assert target["datasource"] == each["datasource"]
            for found in _SELECTOR.finditer(target["expr"]):
                for label in {"queue", "task"} & LABELS[found["name"]]:
                    assert f'{label}=~"${label}"' in (found["matchers"] or ""), target["expr"]


def test_the_panels_do_not_cover_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert not taken & cells
        assert place["x"] + place["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_reference_lists_what_is_exposed_and_nothing_else() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", REFERENCE.read_text(), re.MULTILINE)
    told = [(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows]
    assert told == [(about.name, about.kind, about.labels) for about in CATALOGUE]


def test_the_reference_names_every_value_and_every_bucket() -> None:
    text = REFERENCE.read_text()
    for value in (*CAUSES, *VALUES["outcome"], "starting", "ready", "draining", "unkept"):
        assert f"`{value}`" in text
    for bounds in (BUCKETS, STARTUP_BUCKETS):
        assert f": {', '.join(f'{bound:g}' for bound in bounds)}." in text
