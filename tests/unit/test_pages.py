"""Which code blocks a documentation page has, and what is asked of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.pages import Block, PageError, blocks, check_syntax, commands


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text)
    return path


def test_blocks_come_with_language_text_and_line(tmp_path: Path) -> None:
    text = "# Title\n\n```python\nx = 1\n```\n\n~~~bash title\nls\n~~~\n"
    assert list(blocks(page(tmp_path, text))) == [
        Block(language="python", text="x = 1\n", line=3),
        Block(language="bash", text="ls\n", line=7),
    ]


def test_a_block_in_a_list_loses_its_indent(tmp_path: Path) -> None:
    (block,) = blocks(page(tmp_path, "1. First\n\n   ```python\n   if x:\n       y\n   ```\n"))
    assert block.text == "if x:\n    y\n"


def test_a_block_in_a_note_is_found(tmp_path: Path) -> None:
    text = "````{note}\nSee:\n\n```bash\nls\n```\n````\n\n```text\nout\n```\n"
    assert [block.language for block in blocks(page(tmp_path, text))] == ["bash", "text"]


def test_a_reason_stands_right_before_its_block(tmp_path: Path) -> None:
    text = "<!-- no-run: needs a GPU -->\n\n```python\nx\n```\n\n```python\ny\n```\n"
    assert [block.no_run for block in blocks(page(tmp_path, text))] == ["needs a GPU", None]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```\nls\n```\n", r"page.md:1: write the block's language"),
        ("```{code-block} python\nx\n```\n", r"page.md:1: write the block's language"),
        ("```{eval-rst}\n.. code-block:: python\n```\n", r"page.md:1: write code in a block of"),
        ("Text\n\n<!-- no-run: -->\n```bash\nls\n```\n", r"page.md:3: say why"),
    ],
)
def test_code_that_would_escape_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(PageError, match=told):
        list(blocks(page(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("# tasks.py\nx = 1\n", "tasks.py"),
        ("# settings/worker.ini\n", "settings/worker.ini"),
        ("# see tasks.py\n", None),
        ("x = 1\n", None),
    ],
)
def test_a_first_line_with_only_a_files_name_names_the_file(text: str, file: str | None) -> None:
    assert Block(language="python", text=text, line=1).file == file


def test_a_console_block_runs_what_follows_the_prompt() -> None:
    text = "$ echo a \\\n    b\na b\n$ true\n"
    block = Block(language="console", text=text, line=1)
    assert list(commands(block.script)) == ["echo a      b", "true"]


def test_await_at_the_top_of_a_block_is_well_formed() -> None:
    check_syntax(Block(language="python", text="await x\n", line=1))
    with pytest.raises(SyntaxError):
        check_syntax(Block(language="python", text="await =\n", line=1))


@pytest.mark.parametrize(
    ("language", "good", "bad"),
    [
        ("json", '{"a": 1}', '{"a": ...}'),
        ("ini", "[Service]\nExec=a\nExec=%i\n", "[Service]\nExec\n"),
        ("yaml", "a: [1]\n---\nb: 2\n", "a: [1\n"),
    ],
)
def test_data_is_checked_for_its_form(language: str, good: str, bad: str) -> None:
    if language == "yaml":
        pytest.importorskip("yaml")
    check_syntax(Block(language=language, text=good, line=1))
    with pytest.raises(Exception, match=r"(?i)expect|parsing"):
        check_syntax(Block(language=language, text=bad, line=1))
