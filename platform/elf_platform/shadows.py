"""Folders and files that Python would take for one of our modules, or of anybody's, because they lie where it looks first."""

import shlex
import sys
from pathlib import Path

_WORKERS_IMPORT = ("deepspeed", "elf", "elf_platform", "mlflow", "numpy", "pyarrow", "ray", "tokenizers", "torch", "transformers")
"""Modules of the workers that the process which starts them need not have loaded."""

def own_packages_first(model: str = "elf") -> None:
    """Lets ``import elf`` find the package that belongs to this one, whatever lies in the working directory.

    Raises ImportError when another one was imported already."""
    roots = [Path(__file__).resolve().parents[2] / "model", Path(__file__).resolve().parents[1]]
    ours = next((root for root in roots if (root / model / "__init__.py").is_file()), None)
    loaded = sys.modules.get(model)
    if ours is None:
        return
    if loaded is not None:
        where = Path(getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", [])), ""))
        if ours / model not in (where.resolve(), *where.resolve().parents):
            raise ImportError(
                f"the module {model!r} was imported from {where}, but the platform needs {ours / model}: something of that name lies where "
                "Python looks first, such as the working directory. Rename it, or start from another folder"
            )
    elif str(ours) not in sys.path[:2] and not _found_there(model, ours):
        sys.path.insert(0, str(ours))


def _found_there(module: str, root: Path) -> bool:
    from importlib.util import find_spec

    spec = find_spec(module)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent.parent == root


def check_interpreter(path: str) -> None:
    """Raises ValueError for an interpreter that Ray cannot start workers with, since it puts the path into a shell command as it is: the
    workers would be waited for without end."""
    if path != shlex.quote(path):
        raise ValueError(
            f"this Python is {path}, and Ray starts no workers from a path with a space or another character that shells read; make the "
            "virtual environment in a folder without one: make VENV=/some/folder, or move the checkout"
        )


def check_folder(folder: Path) -> None:
    """Raises ValueError when ``folder``, the working directory, holds something that would be imported in place of a module that is needed:
    Ray's workers look into the directory that a job was started in before all others."""
    here = folder.resolve()
    loaded = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if name != "__main__"}
    for name in sorted({*loaded, *_WORKERS_IMPORT}):
        shadow = next((path for path in (here / name / "__init__.py", here / f"{name}.py") if path.is_file()), None)
        if shadow is None or (loaded.get(name) and Path(str(loaded[name])).resolve() == shadow.resolve()):
            continue
        held = f"{name}.py" if shadow.stem == name else f"a folder {name}"
        raise ValueError(
            f"the working directory {here} holds {held}, and Ray's workers look there first: they would take it for the Python module "
            f"{name}. Rename it, or start from another folder"
        )
