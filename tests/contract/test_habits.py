"""Habits that a reader relies on: documented names, no pickle, nothing left open."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted([*(ROOT / "model").rglob("*.py"), *(ROOT / "platform").rglob("*.py")])
CODE = [*PACKAGES, *sorted((ROOT / "jobs").glob("*.py"))]


def place(path: Path, node: ast.stmt | ast.expr) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_public_names_are_documented() -> None:
    bare = []
    for path in PACKAGES:
        module = tree(path)
        if module.body and not ast.get_docstring(module):
            bare.append(f"{path.relative_to(ROOT)}: the module")
        for node in module.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{place(path, node)} {node.name}")
    assert bare == []


def test_functions_fit_on_a_screen() -> None:
    long = []
    for path in CODE:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 80:
                long.append(f"{place(path, node)} {node.name}")
    assert long == []


def test_no_pickle() -> None:
    """Loading a pickle runs code; runs and artefacts are safetensors and JSON."""
    found = []
    for path in CODE:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + ([node.module] if isinstance(node, ast.ImportFrom) and node.module else [])
                if {name.split(".")[0] for name in names} & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}:
                    found.append(place(path, node))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = [k for k in node.keywords if k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True]
                if not safe:
                    found.append(place(path, node))
    assert found == []


def test_nothing_is_left_open() -> None:
    words = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X\\b", "NotImplemented" + "Error"]))
    tests = sorted((ROOT / "tests").rglob("*.py"))
    skips = re.compile("|".join(["pytest\\.sk" + "ip", "mark\\.sk" + "ip", "x" + "fail"]))
    open_code = [f"{p.relative_to(ROOT)}: {m[0]}" for p in [*CODE, *tests] for m in words.finditer(p.read_text(encoding="utf-8"))]
    open_tests = [f"{p.relative_to(ROOT)}: {m[0]}" for p in tests for m in skips.finditer(p.read_text(encoding="utf-8"))]
    assert open_code + open_tests == []


def test_paths_named_in_the_documents_exist() -> None:
    """Paths that the README and the decisions name in backticks lie in the tree."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = re.compile(r"`((?:model|platform|jobs|tests|docs|benchmarks)/[\w./-]*\w)`")
    missing = [f"{d.name}: {m[1]}" for d in documents for m in named.finditer(d.read_text(encoding="utf-8")) if not (ROOT / m[1]).exists()]
    assert missing == []
