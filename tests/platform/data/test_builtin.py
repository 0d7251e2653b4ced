"""The built-in corpus: which docstrings are found, what counts as prose, and that it is the same every time."""

import ast
import inspect
import sys
import time
from pathlib import Path

import pytest

from elf_platform.data import builtin
from elf_platform.data.prose import is_prose, prose_paragraphs

SENTENCE = "This function returns the sum of all the elements that were given to it, in the order in which they came. "
LONG = SENTENCE + "It is the same as adding them one by one, but it is faster when there are many of them, as is often the case."

DOCSTRING = f"""Return the sum, as a `Number`.

{LONG} See :func:`~math.fsum` and the ``start``
argument [1]_.

Parameters
----------
x : array_like
    The values that are to be added up, which may be of any type that has an addition.
name (str): The name under which the result is kept for the next time that it is asked for,
    which may be long.

- A first point, which is a whole sentence and tells the reader something that is of use.
* `count` (int): The number of the values that were added up until now, before this one was read.

+------+-------+
| a    | b     |
+------+-------+

>>> sum_of([1, 2, 3])
6

    result = sum_of(values, start=0)  # and the rest of the code is here, with all of the values

Licensed under the Apache License, Version 2.0; you may not use this file except in compliance with the terms of it.
"""


def test_prose_is_kept_and_the_rest_dropped() -> None:
    assert list(prose_paragraphs(DOCSTRING)) == [
        LONG + " See fsum and the start argument.",
        "The values that are to be added up, which may be of any type that has an addition.",
        "The name under which the result is kept for the next time that it is asked for, which may be long.",
        "A first point, which is a whole sentence and tells the reader something that is of use.",
        "The number of the values that were added up until now, before this one was read.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Short sentence.",
        "a fragment of a sentence that goes on for a while and ends with a full stop, as it should.",
        "A sentence that never comes to its end, because the line was cut in the middle of the",
        "Alpha, beta, gamma, delta, epsilon, zeta, eta, theta, iota, kappa, lambda, mu, nu, xi, omicron.",
        "The result is x[i, j] = a[i] * b[j] + c[i, j] ** 2 for all (i, j) in range(10) and y = 3.",
        "Copyright by the authors, who give you the right to use this text in all of your works.",
        "See https://example.com for all that is to be known of this, and of the rest as well.",
        "Call it as in the following line, which is the usual way to do this:: and then read on.",
    ],
)
def test_what_is_no_prose(text: str) -> None:
    assert not is_prose(text)


def package(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / "sample_package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def test_docstrings_are_found_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def text(k: int) -> str:
        return LONG.replace("the sum of all", f"the sum number {k} of all")

    package(
        tmp_path,
        {
            "__init__.py": f'#!/usr/bin/python\n# A comment.\n"""{text(0)}"""\nraise RuntimeError("imported")\n',
            "b.py": f'class A:\n    """{text(1)}"""\n    def f(\n        self,\n    ) -> int:  # why\n        r"""{text(2)}"""\n',
            "a/c.py": f'def f():\n    """{LONG}\\n\\n    {text(3)}"""\n\ndef g():\n    """{text(3)}"""\n',
            "d.pyx": f'cdef class B:\n    """\n    {text(4)}\n    """\n',
            "_sum_docs.py": f'add_docstr(f, r"""{text(5)}""".format())\n',
            "e.py": f'value = call("""{text(6)}""")\n',
            "tests/test_f.py": f'"""{text(7)}"""\n',
            "broken.py": f'def f(:\n    """{text(8)}"""\n',
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(builtin, "PACKAGES", ("sample_package", "no_such_package"))
    assert [source.name for source in builtin.sources()] == ["python", "sample_package"]
    assert list(builtin.documents("sample_package")) == [
        text(0), text(5), f"{LONG}\n\n{text(3)}", text(1), text(2), text(8), text(4),
    ]  # fmt: skip
    assert "sample_package" not in sys.modules


def test_against_the_parser_on_a_module_of_the_standard_library() -> None:
    path = Path(inspect.getfile(ast))
    tree = ast.parse(path.read_bytes())
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    expected = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, nodes)}
    long = {text for text in expected if text and len(text) >= 250}
    assert len(long) > 5
    assert long <= set(builtin.docstrings_of(path))


@pytest.mark.parametrize("name", ["plain.py", "of_docs.py"])
def test_quotes_that_nothing_closes_are_passed_over(tmp_path: Path, name: str) -> None:
    """Some source files hold an odd number of triple quotes, inside strings of another kind. Looking for the closing ones must end."""
    path = tmp_path / name
    path.write_text(f'def f():\n    """{LONG}"""\n\ndef g():\n    """' + 'a "b" \\n c\n' * 5_000)
    assert list(builtin.docstrings_of(path)) == [LONG]


def test_the_language_reference_reads_as_prose_and_is_the_same_every_time() -> None:
    documents = list(builtin.documents("python"))
    text = "\n\n".join(documents)
    assert len(text) > 300_000
    assert all(len(document) >= 200 for document in documents)
    assert all(is_prose(paragraph) for paragraph in text.split("\n\n"))
    assert "assignment" in text and ">>>" not in text and "Permission is hereby" not in text
    assert documents == list(builtin.documents("python"))


def test_the_documentation_of_compiled_functions_is_part_of_it() -> None:
    source = next(source for source in builtin.sources() if source.name == "torch")
    found = list(builtin.docstrings_of(source.root / "_tensor_docs.py"))
    assert len(found) > 50


@pytest.mark.slow
def test_the_whole_corpus_is_large_enough_to_train_on_and_quick_to_read() -> None:
    began = time.process_time()
    size = {source.name: sum(map(len, builtin.documents(source.name))) for source in builtin.sources()}
    assert sum(size.values()) > 4_000_000, size
    assert time.process_time() - began < 60  # 11 s on an idle core for 11 MB
