"""Celery's stacks of tasks and of their requests, which each input looks at ten times.

Celery keeps a dict in a dict for each greenlet, and finds it where the look-up of an attribute has
failed (``celery.utils.threads``, 5.6 and 5.7). Here it is one list in one dict: a push and a pop
take a quarter of the time, and a waiting input keeps a dict less per stack.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.utils import threads


class QuickStack(threads._LocalStack):
    """Celery's stack by greenlet. Made of one of Celery's, for others refer to that."""

    _stacks: dict[Any, list[Any]]

    def push(self, obj: Any) -> list[Any]:
        """Put it on the greenlet's own stack, which is returned."""
        ident = threads.get_ident()
        stack = self._stacks.get(ident)
        if stack is None:
            stack = self._stacks[ident] = [obj]
        else:
            stack.append(obj)
        return stack

    def pop(self) -> Any:
        """Take what is on top, None where nothing is."""
        ident = threads.get_ident()
        stack = self._stacks.get(ident)
        if stack is None:
            return None
        if len(stack) > 1:
            return stack.pop()
        del self._stacks[ident]
        return stack[-1]

    def __len__(self) -> int:
        return len(self.stack)

    @property
    def stack(self) -> list[Any]:
        """What is on it, the top last."""
        return self._stacks.get(threads.get_ident(), [])

    @property
    def top(self) -> Any:
        """What is on top, None where nothing is."""
        stack = self._stacks.get(threads.get_ident())
        return None if stack is None else stack[-1]

    def __release_local__(self) -> None:
        self._stacks.pop(threads.get_ident(), None)


def quicken(stacks: Iterable[Any]) -> None:
    """Make these of Celery's stacks quick ones, with what is on them."""
    for stack in stacks:
        if type(stack) is threads._LocalStack:  # another with USE_FAST_LOCALS
            stack._stacks = {ident: local["stack"] for ident, local in list(stack._local)}
            stack.__class__ = QuickStack


def restore(stacks: Iterable[Any]) -> None:
    """Make them Celery's own again; a thread that is left behind may still use the quick ones."""
    for stack in stacks:
        if type(stack) is QuickStack:
            storage = stack._local.__storage__
            storage.clear()
            storage.update({ident: {"stack": kept} for ident, kept in stack._stacks.items()})
            stack.__class__ = threads._LocalStack
