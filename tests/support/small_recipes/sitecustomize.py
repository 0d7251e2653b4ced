"""On PYTHONPATH of a test, this makes the recipes small in every Python that starts: a command runs as it is printed, in seconds."""

import functools
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

RECIPES = ("tiny", "ar-tiny", "translate-small", "summarise-small", "judge-small")


class _Recipes(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "elf_platform.recipes":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        whole = spec.loader.exec_module

        def execute(module: ModuleType) -> None:
            whole(module)
            module.RECIPES.update({recipe: _small(recipe, module.RECIPES[recipe]) for recipe in RECIPES})

        spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


def _small(name: str, make: Callable[[], Any]) -> Callable[[], Any]:
    @functools.wraps(make)
    def small() -> Any:
        from elf.codecs import OwnConfig
        from elf.nn.config import NetworkConfig

        run = make()
        codec = run.codec
        if isinstance(codec, OwnConfig):
            network = NetworkConfig(hidden=32, depth=1, heads=2)
            codec = replace(codec, channels=16, network=network, steps=8, global_batch=8)
        source = {"source_length": 16} if run.data.source_column else {}
        return replace(
            run, codec=codec,
            data=replace(run.data, length=32, tokenizer=replace(run.data.tokenizer, vocab_size=400, sample_mb=0.5), **source),
            network=NetworkConfig(hidden=32, depth=1, heads=2, bottleneck=16, prefix_tokens=run.network.prefix_tokens),
            optim=replace(run.optim, warmup_steps=2),
            train=replace(
                run.train, steps=40, global_batch=8, log_every=10, valid_every=40, valid_rows=8, sample_every=0, checkpoint_every=40,
                judge="tiny" if name == "tiny" else "none",
            ),
            sample=replace(run.sample, steps=4) if "ar-" not in name and name != "judge-small" else run.sample,
        )

    return small


sys.meta_path.insert(0, _Recipes())
