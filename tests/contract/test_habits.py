"""Habits that a reader relies on: documented names, no pickle, nothing left open."""

import ast
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted([*(ROOT / "model").rglob("*.py"), *(ROOT / "platform").rglob("*.py")])
OWN_MESSAGES = {"platform/elf_platform/data/prepare.py"}  # jobs on their way to Ray tasks, never from a file
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


def runs_foreign_code(call: ast.Call) -> bool:
    """True for a call that unpickles: what it reads can run code."""
    name, options = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
    if name == "torch.load":
        return options.get("weights_only") != "True"
    if name in ("np.load", "numpy.load"):
        return options.get("allow_pickle", "False") != "False"
    return name.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal") and not name.endswith((".dumps", ".dump"))


def test_no_pickle_is_read() -> None:
    """Runs, data and artefacts are safetensors, Arrow and JSON."""
    assert runs_foreign_code(ast.parse("torch.load(path)").body[0].value)  # type: ignore[attr-defined]
    found = {
        place(path, node)
        for path in CODE
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and runs_foreign_code(node) and path.relative_to(ROOT).as_posix() not in OWN_MESSAGES
    }
    assert found == set()


def test_nothing_is_left_open() -> None:
    marks = re.compile(r"\b(TO" + "DO|FIX" + "ME|XX" + "X)\b")
    evasions = re.compile("|".join(["NotImplemented" + "Error", "pytest\\.sk" + "ip", "mark\\.sk" + "ip", "x" + "fail"]))
    found = []
    for path in [*CODE, *sorted((ROOT / "tests").rglob("*.py"))]:
        with path.open("rb") as source:
            for token in tokenize.tokenize(source.readline):
                left = (token.type == tokenize.COMMENT and marks.search(token.string)) or evasions.search(token.line)
                if left:
                    found.append(f"{path.relative_to(ROOT)}:{token.start[0]}: {token.line.strip()}")
    assert sorted(set(found)) == []


def test_paths_named_in_the_documents_exist() -> None:
    """Paths that the README and the decisions name in backticks lie in the tree."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = re.compile(r"`((?:model|platform|jobs|tests|docs|benchmarks)/[\w./-]*\w)`")
    missing = [f"{d.name}: {m[1]}" for d in documents for m in named.finditer(d.read_text(encoding="utf-8")) if not (ROOT / m[1]).exists()]
    assert missing == []
