"""Flower's templates and ours, with our entry in Flower's navigation bar."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from tornado import template

logger = logging.getLogger(__name__)

TEMPLATES: Final = Path(__file__).with_name("templates")

_NAVBAR: Final = "navbar.html"
#: In Flower's bar (2.2), the entry before which ours comes, and how any entry begins.
_BROKER: Final = "active_tab == 'broker'"
_ENTRY: Final = '<li class="nav-item">'
_FLEET: Final = """<li class="nav-item">
          <a class="nav-link{% if active_tab == 'fleet' %} active{% end %}"
            href="{{ reverse_url('fleet') }}"
            {% if active_tab == 'fleet' %}aria-current="page"{% end %}>Fleet</a>
        </li>
        """


class FleetLoader(template.Loader):
    """Finds our templates by their names, and Flower's where we have none of that name.

    Args:
        root: Flower's folder.
    """

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(root, **options)
        self._ours = {path.name: path for path in TEMPLATES.glob("*.html")}

    def _create_template(self, name: str) -> template.Template:
        # Of tornado.template.Loader (6): called once for each name.
        path = self._ours.get(name, Path(self.root) / name)
        source = path.read_text(encoding="utf-8")
        if name == _NAVBAR:
            source = with_fleet(source)
        return template.Template(source, name=name, loader=self)


def with_fleet(navbar: str) -> str:
    """Flower's navigation bar with an entry of ours; unchanged where it does not look as known."""
    broker = navbar.find(_BROKER)
    entry = navbar.rfind(_ENTRY, 0, max(broker, 0))
    if entry < 0:
        logger.warning(
            "Flower's navigation bar has another form than the known one, so it gets no entry for "
            "the Fleet page: open /fleet by its address"
        )
        return navbar
    return navbar[:entry] + _FLEET + navbar[entry:]
