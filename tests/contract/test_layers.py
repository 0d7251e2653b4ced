"""Layers point one way: jobs -> elf_platform -> elf; Ray, DeepSpeed and MLflow each have their rooms. Read from the source by `ast`."""

import ast
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOTS = (ROOT / "model", ROOT / "platform")

RAY_MODULES = {
    f"elf_platform.{name}"
    for name in (
        "runtime", "place", "data.prepare", "sampling.actors", "train.driver", "train.callbacks", "train.resizing", "evaluate.pool"
    )
}
"""Modules that place work on the cluster; no other may import Ray."""


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    at_import: bool  # runs when the file is imported: not inside a function, not under `if TYPE_CHECKING`


def imports_in(node: ast.AST, at_import: bool = True) -> Iterator[Import]:
    """Every import below ``node``; ``from a import b`` counts as ``a`` and as ``a.b``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_import) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: imports are absolute here"
            yield Import(child.module or "", child.lineno, at_import)
            yield from (Import(f"{child.module}.{alias.name}", child.lineno, at_import) for alias in child.names)
        else:
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            )
            yield from imports_in(child, at_import and not deferred)


def module_name(path: Path) -> str:
    root = next(root for root in ROOTS if root in path.parents)
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = [path for root in ROOTS for path in sorted(root.rglob("*.py"))]
MODULES = {module_name(path): list(imports_in(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES}


def belongs(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def offenders(importer: str, *packages: str, at_import_only: bool = False) -> list[str]:
    return [
        f"{name}:{i.line} imports {i.module}"
        for name, imports in MODULES.items()
        if fnmatch(name, importer)
        for i in imports
        if belongs(i.module, *packages) and (i.at_import or not at_import_only)
    ]


def test_the_tree_was_read() -> None:
    assert {"elf", "elf.draws", "elf.processes.embedded_flow", "elf_platform.cli", "elf_platform.train.loop"} <= MODULES.keys()
    assert offenders("elf.draws", "torch") and offenders("elf_platform.runtime", "ray")
    assert set(MODULES) >= RAY_MODULES


def test_the_model_knows_no_platform() -> None:
    model = [name for name in MODULES if belongs(name, "elf")]
    assert [line for name in model for line in offenders(name, "ray", "deepspeed", "mlflow", "elf_platform", "jobs")] == []


def test_the_platform_knows_no_jobs() -> None:
    assert offenders("*", "jobs") == []


def test_nothing_is_imported_through_the_source_roots() -> None:
    assert offenders("*", "model", "platform.elf_platform") == []


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("ray", RAY_MODULES),
        ("deepspeed", {"elf_platform.train.zero*"}),
        ("mlflow", {"elf_platform.tracking.*"}),
    ],
)
def test_each_library_has_its_rooms(library: str, rooms: set[str]) -> None:
    strangers = [line for line in offenders("*", library) if not any(fnmatch(line.split(":")[0], room) for room in rooms)]
    assert strangers == []


def test_heavy_and_optional_libraries_are_imported_late() -> None:
    assert offenders("*", "transformers", "datasets", "huggingface_hub", "matplotlib", at_import_only=True) == []


@pytest.mark.parametrize("start", ["train.loop", "pretrain", "check", "data.prepare", "sampling.job", "evaluate.command", "notebook"])
def test_frameworks_are_reached_late(start: str) -> None:
    """Importing the loop must not import Ray, DeepSpeed or MLflow, by whatever way; nor must the jobs, which refuse settings without
    waiting for them."""
    start = f"elf_platform.{start}"
    way: dict[str, str] = {start: ""}
    queue = deque(way)
    while queue:
        importer = queue.popleft()
        for found in MODULES[importer]:
            assert not (found.at_import and belongs(found.module, "ray", "deepspeed", "mlflow")), (
                f"{start} reaches {found.module} by {importer}, line {found.line}, from {way[importer]}"
            )
            packages = [".".join(found.module.split(".")[:n]) for n in range(1, found.module.count(".") + 2)]
            for name in packages:  # importing a.b.c runs a and a.b as well
                if found.at_import and name in MODULES and name not in way:
                    way[name] = importer
                    queue.append(name)
    assert len(way) > 10


def test_a_fresh_interpreter_imports_the_model_alone() -> None:
    code = (
        "import importlib, pkgutil, sys, elf\n"
        "names = [m.name for m in pkgutil.walk_packages(elf.__path__, 'elf.')]\n"
        "[importlib.import_module(name) for name in names]\n"
        "print(len(names), *[m for m in ('ray', 'deepspeed', 'mlflow', 'transformers', 'datasets', 'elf_platform') if m in sys.modules])"
    )
    environment = {"PYTHONPATH": str(ROOT / "model"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    count, *loaded = done.stdout.split()
    assert int(count) > 30
    assert loaded == []
