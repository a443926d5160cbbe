"""What the handlers of the page, of its data and of the API have in common."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http.client import responses
from typing import Any

from flower.views import BaseHandler
from tornado import web

from celery_concurrent.board import Board
from celery_concurrent.flower import answers, guard
from celery_concurrent.flower.answers import Head
from celery_concurrent.flower.asking import Asking
from celery_concurrent.flower.refusals import RefusalError


class JsonHandler(BaseHandler):
    """Answers in JSON, errors too.

    An error that asks for a login stays Flower's own: browsers and programs know that one.
    """

    @property
    def board(self) -> Board:
        """What is known of the fleets."""
        board: Board = self.application.settings["fleet_board"]
        return board

    @property
    def asking(self) -> Asking:
        """To ask the autoscaler and nodes."""
        asking: Asking = self.application.settings["fleet_asking"]
        return asking

    @property
    def head(self) -> Head:
        """What the answer begins with."""
        return Head(
            at=round(time.time(), 3),
            why_no_controls=guard.why_no_controls(
                self.application.options, open_api=bool(self.unauthenticated_api)
            ),
        )

    def one(self, name: str) -> str | None:
        """An argument of the query as it was written (Flower's own way escapes it for HTML)."""
        argument: str | None = self.get_argument(name, None, escape=False)
        return argument

    def answer(self, body: Mapping[str, Any]) -> None:
        """Finish with this body."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(answers.text(body))

    def compute_etag(self) -> str | None:
        """None: each answer holds its time, so none is the same as another."""
        return None

    def log_exception(self, kind: Any, error: Any, trace: Any) -> None:
        """A refusal is the asker's, so it stays out of the log."""
        if not isinstance(error, RefusalError):
            super().log_exception(kind, error, trace)

    def send_error(self, status_code: int = 500, **options: Any) -> None:
        """A refusal brings its own status."""
        error = options.get("exc_info", (None, None))[1]
        if isinstance(error, RefusalError):
            status_code = error.status
        super().send_error(status_code, **options)

    def write_error(self, status_code: int, **options: Any) -> None:
        """``{"error": ...}``."""
        if status_code == 401:
            super().write_error(status_code, **options)
            return
        error = options.get("exc_info", (None, None))[1]
        if isinstance(error, RefusalError):
            told: str | None = str(error)
        else:
            told = error.log_message if isinstance(error, web.HTTPError) else None
        self.answer({"error": told or responses.get(status_code, "Unknown error")})
