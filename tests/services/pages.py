"""The code blocks of a documentation page, and what each of them asks for.

CONTRIBUTING.md, "Code blocks in the documentation", is the same for those who write pages.
"""

from __future__ import annotations

import ast
import configparser
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Languages that are run; blocks in others are pictures, unless they name a file.
PYTHON = frozenset({"python", "pycon"})
SHELL = frozenset({"bash", "sh", "console"})

_FENCE = re.compile(r"(?P<indent>\s*)(?P<marks>`{3,}|~{3,})(?P<info>.*)")
_NO_RUN = re.compile(r"<!--\s*no-run:\s*(?P<reason>.*?)\s*-->")
_FILE = re.compile(r"(?:#|//|--|;)\s*(?P<name>[\w./-]+\.\w+)\s*")
_HIDDEN_CODE = ("{code", "{sourcecode")


class PageError(ValueError):
    """A page is written so that its code would escape the test; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced code block; ``no_run`` is the reason why it is only checked for its syntax."""

    language: str
    text: str
    line: int
    no_run: str | None = None

    @property
    def file(self) -> str | None:
        """The name in a first line that is a comment with nothing but a file's name."""
        found = _FILE.fullmatch(self.text.partition("\n")[0])
        return found["name"] if found else None

    @property
    def script(self) -> str:
        """What a shell is to run: in a ``console`` block, the lines after a ``$``."""
        if self.language != "console":
            return self.text
        return "".join(f"{command}\n" for command in _console(self.text))


def blocks(page: Path) -> Iterator[Block]:
    """The page's fenced blocks from top to bottom.

    Raises:
        PageError: a block names no language, or hides in a directive; a no-run has no reason.
    """
    lines = iter(enumerate(page.read_text().splitlines(), start=1))
    directives: list[str] = []
    reason: str | None = None
    for number, line in lines:
        fence = _FENCE.fullmatch(line)
        if fence is None:
            if line.strip():
                reason = _reason(line, f"{page.name}:{number}")
            continue
        info, marks = fence["info"].strip(), fence["marks"]
        if directives and not info and marks == directives[-1]:
            directives.pop()
        elif info == "{eval-rst}":
            if "code" in _body(lines, fence["indent"], marks):
                raise PageError(f"{page.name}:{number}: write code in a block of its own")
        elif info.startswith("{") and not info.startswith(_HIDDEN_CODE):
            directives.append(marks)  # a note and its like: what is in it is read as usual
        elif not re.match(r"\w", info):
            raise PageError(f"{page.name}:{number}: write the block's language after {marks}")
        else:
            text = _body(lines, fence["indent"], marks)
            yield Block(language=info.split()[0], text=text, line=number, no_run=reason)
        reason = None


def check_syntax(block: Block) -> None:
    """An error of its parser if it is Python or data and not well-formed.

    ``await`` at the top level of Python is.
    """
    if block.language == "python":
        compile(block.text, f"line {block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "ini":
        # RabbitMQ's has no sections.
        text = block.text if "\n[" in f"\n{block.text}" else f"[all]\n{block.text}"
        configparser.ConfigParser(strict=False, interpolation=None).read_string(text)
    elif block.language == "yaml":
        import yaml

        list(yaml.safe_load_all(block.text))


def commands(script: str) -> Iterator[str]:
    """A script's lines, those that end in a backslash joined with the next."""
    yield from filter(str.strip, script.replace("\\\n", " ").splitlines())


def _reason(line: str, where: str) -> str | None:
    found = _NO_RUN.fullmatch(line.strip())
    if found is None:
        return None
    if not found["reason"]:
        raise PageError(f"{where}: say why, as in <!-- no-run: needs a GPU -->")
    return found["reason"]


def _body(lines: Iterator[tuple[int, str]], indent: str, marks: str) -> str:
    body = []
    for _, line in lines:
        stripped = line.strip()
        if stripped.startswith(marks) and not stripped.strip(marks[0]):
            break
        body.append(line.removeprefix(indent))
    return "".join(f"{line}\n" for line in body)


def _console(text: str) -> Iterator[str]:
    going_on = False
    for line in text.splitlines():
        if line.startswith("$ ") or going_on:
            yield line if going_on else line[2:]
            going_on = line.endswith("\\")
