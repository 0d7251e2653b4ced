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


WHOLE = {"committing", "committing_folder", "temporary_folder"}
WRITES_ITSELF = {
    "model/elf/files.py": "the ways to write",
    "platform/elf_platform/lock.py": "a lock and a note of who holds it",
    "platform/elf_platform/data/prepare.py": "a lock",
    "platform/elf_platform/data/shards.py": "within committing, entered for as long as a shard is open",
    "platform/elf_platform/runtime.py": "a lock, and what standard error is sent to while Ray starts",
    "platform/elf_platform/train/watchdog.py": "stacks of a process that hangs, as far as it comes",
}


def writes(call: ast.Call) -> bool:
    """Whether a call writes, or renames, a file by itself, so that a reader may find half of it."""
    name, mode = ast.unparse(call.func), call.args[0 if ast.unparse(call.func).endswith(".open") else 1 :]
    last, bare = name.rsplit(".", 1)[-1], "." not in name
    modes = [*mode[:1], *(k.value for k in call.keywords if k.arg == "mode")]
    if last == "open":
        return any(isinstance(m, ast.Constant) and isinstance(m.value, str) and set(m.value) & set("wax+") != set() for m in modes)
    if last in ("write_text", "write_bytes"):
        return not bare  # elf.files.write_text is a bare name
    if last == "replace":
        return not bare and len(call.args) == 1 and not call.keywords
    known = ("json.dump", "np.save", "np.savez", "torch.save", "os.replace", "os.truncate", "shutil.move", "shutil.copy", "shutil.copytree")
    return name in known or last in ("save_file", "write_table", "rename", "save_pretrained", "to_csv", "to_parquet", "savefig")


def test_files_are_written_in_the_ways_that_leave_them_whole() -> None:
    """Everything goes through ``elf.files``: a raw write leaves half a file to readers, or nothing after a loss of power."""
    samples = {
        "path.write_text(x)": True, "write_text(path, x)": False, "open(path, 'w')": True, "path.open('ab', buffering=0)": True,
        "path.open()": False, "open(path, 'rb')": False, "part.replace(path)": True, "text.replace('a', 'b')": False,
        "dataclasses.replace(a, b=1)": False, "save_file(tensors, path)": True, "old.rename(new)": True, "np.save(f, a)": True,
    }
    assert {text: writes(ast.parse(text).body[0].value) for text in samples} == samples  # type: ignore[attr-defined]
    found = []
    for path in CODE:
        if path.relative_to(ROOT).as_posix() in WRITES_ITSELF:
            continue
        module = tree(path)
        inside = {
            id(inner)
            for node in ast.walk(module)
            if isinstance(node, ast.With) and any(ast.unparse(item.context_expr).split("(")[0] in WHOLE for item in node.items)
            for inner in ast.walk(node)
        }
        found += [place(path, n) for n in ast.walk(module) if isinstance(n, ast.Call) and writes(n) and id(n) not in inside]
    assert found == []
    assert [name for name in WRITES_ITSELF if not (ROOT / name).is_file()] == []


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
