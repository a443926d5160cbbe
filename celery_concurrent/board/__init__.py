"""What nodes and autoscalers say of themselves, put together for those who show it.

A :class:`Board` is fed with events and asked for fleets, nodes and their last hour. It reads no
broker, and trusts none: events come from anybody who reaches it.
"""

from __future__ import annotations

from celery_concurrent.board.board import Board

__all__ = ["Board"]
