"""What is printed for people goes through one console, to which names, paths and samples are nothing but text."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ONE_PLACE = ROOT / "platform/elf_platform/terminal.py"
MARKUP = {"Console", "TextColumn", "from_markup", "get_console"}


def marked_up(source: str) -> list[int]:
    """Lines on which rich is asked for something that reads markup in its text."""
    tree = ast.parse(source)
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rich"]
    lines = [node.lineno for node in imported if {alias.name for alias in node.names} & {*MARKUP, "print", "inspect"}]
    lines += [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "from_markup"]
    lines += [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Import) and any(alias.name == "rich" for alias in node.names)]
    return sorted(lines)


def test_one_console() -> None:
    assert marked_up("from rich.console import Console\n") == [1] and marked_up("from rich import print\n") == [1]
    assert marked_up("from rich.table import Table\n") == []
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("platform", "jobs", "model")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != ONE_PLACE
        for line in marked_up(path.read_text(encoding="utf-8"))
    ]
    assert found == []
