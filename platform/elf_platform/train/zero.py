"""The DeepSpeed engine: ZeRO stages 0 to 3 under our own optimiser.

DeepSpeed reduces and partitions gradients, gathers parameters and owns the flat master weights. What happens between a gradient and
the new weights is ours: DeepSpeed is given one optimiser with one parameter group, whose ``step`` maps the flat partition back
to slices of named parameters and calls ``Updater``. So Muon, clipping on raw gradients, the float32 moving average and checkpoints are
the same at every stage, and DeepSpeed's own Muon (another Newton-Schulz, clipping after it) is not involved.

Precision: DeepSpeed runs in float32; bfloat16 is the trunk's own autocast, as in the plain engine.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import Tensor

from elf.batch import Batch
from elf.optim import OptimConfig, ParamSlice, orthogonalise_locally
from elf_platform.config import EngineConfig
from elf_platform.train.context import WorkerContext
from elf_platform.train.engine import Engine, Forward, unflattened, whole_slices
from elf_platform.train.exchange import MatrixExchange, gather_slices
from elf_platform.train.module import ProcessModule
from elf_platform.train.update import Updater, UpdateResult


class _Bridge(torch.optim.Optimizer):
    """What DeepSpeed takes for the optimiser: hands the flat gradient to ``on_step`` at each update."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        super().__init__([{"params": parameters}], {"lr": 0.0})
        self.on_step: Callable[[list[torch.nn.Parameter]], None] | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Called by DeepSpeed with its flat partition as the only parameter (all parameters at stage 0)."""
        if self.on_step is not None:
            self.on_step(self.param_groups[0]["params"])


class ZeroEngine(Engine):
    """DeepSpeed at one of the ZeRO stages."""

    def __init__(
        self, module: ProcessModule, optim: OptimConfig, config: EngineConfig, context: WorkerContext, *, total_steps: int,
        accumulation: int,
    ) -> None:
        _prepare(context)
        self.context, self.stage, self.replicated = context, config.zero, config.zero == 0
        names = {id(p): name for name, p in module.network.named_parameters()}
        self._linear = torch.nn.functional.linear
        self._bridge = _Bridge(list(module.network.parameters()))
        self._engine, *_ = deepspeed.initialize(
            model=module, optimizer=self._bridge, config=_settings(config.zero, context.world_size, accumulation)
        )
        slices = {0: self._slices_0, 1: self._slices_1_2, 2: self._slices_1_2, 3: self._slices_3}[config.zero](names)
        sharded = not self.replicated and context.world_size > 1
        self.updater = Updater(
            slices, optim, total_steps=total_steps, reduce=self._sum if sharded else lambda x: x,
            orthogonalise=MatrixExchange(slices, optim) if sharded else orthogonalise_locally,
        )
        self._bridge.on_step = self._on_step
        self._step, self._result = 0, None  # type: tuple[int, UpdateResult | None]
        self._allow: Callable[[float], bool] = math.isfinite

    @property
    def _zero(self) -> Any:
        return self._engine.optimizer

    def _slices_0(self, names: dict[int, str]) -> list[ParamSlice]:
        return whole_slices(self._engine.module)

    def _slices_1_2(self, names: dict[int, str]) -> list[ParamSlice]:
        assert isinstance(self._zero, DeepSpeedZeroOptimizer) and len(self._zero.bit16_groups) == 1
        slices = []
        for p in self._zero.bit16_groups[0]:
            held = p._hp_mapping  # None where this rank's flat partition holds nothing of the parameter
            if held is not None:
                start, size = held.lp_fragment_address.start, held.lp_fragment_address.numel
                slices.append(
                    ParamSlice(name=names[id(p)], shape=tuple(p.shape), start=start, stop=start + size, value=held.hp_fragment)
                )
        return slices

    def _slices_3(self, names: dict[int, str]) -> list[ParamSlice]:
        assert isinstance(self._zero, DeepSpeedZeroOptimizer_Stage3) and len(self._zero.fp16_groups) == 1
        flat, offset, slices = self._zero.fp32_partitioned_groups_flat[0], 0, []
        for p in self._zero.fp16_groups[0]:
            size = p.ds_tensor.ds_numel  # equal on all ranks; the last ones hold padding where it does not divide
            start = min(self.context.rank * size, p.ds_numel)
            stop = min(start + size, p.ds_numel)
            value = flat.detach().narrow(0, offset, stop - start)
            slices.append(ParamSlice(name=names[id(p)], shape=tuple(p.ds_shape), start=start, stop=stop, value=value))
            offset += size
        return slices

    def _grads(self, parameters: list[torch.nn.Parameter]) -> Iterator[Tensor]:
        if self.stage == 0:
            for p in parameters:
                yield (torch.zeros_like(p) if p.grad is None else p.grad).view(-1)
            return
        flat = parameters[0]
        assert len(parameters) == 1 and flat.grad is not None
        for s in self.updater.slices:
            # Each slice is a view into the flat partition: its offset there is the gradient's offset too.
            yield flat.grad.narrow(0, s.value.storage_offset() - flat.storage_offset(), s.stop - s.start)

    def _on_step(self, parameters: list[torch.nn.Parameter]) -> None:
        self._result = self.updater.apply(list(self._grads(parameters)), self._step, self._allow)

    def forward(self, batch: Batch, state_BLC: Tensor | None, drawn: Any) -> Forward:
        self._engine.train()
        return self._engine(batch, state_BLC, drawn)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        # DeepSpeed averages over ranks, our loss is divided by the global count already.
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self.context.world_size, scale_wrt_gas=False)
        if not last:
            self._engine.step()

    def step(self, step: int, allow: Callable[[float], bool] = math.isfinite) -> UpdateResult:
        self._step, self._allow, self._result = step, allow, None
        self._engine.step()
        result = self._outcome()
        if result is None:  # DeepSpeed saw a gradient that is not finite and did not call the optimiser, on any rank
            return UpdateResult(lr=0.0, grad_norm=float("nan"), grad_norms={}, update_norms={}, skipped=True)
        return result

    def _outcome(self) -> UpdateResult | None:
        return self._result  # set by DeepSpeed calling _on_step, which a type checker cannot see

    @torch.no_grad()
    def evaluate(self, batch: Batch, state_BLC: Tensor | None, drawn: Any) -> Forward:
        self._engine.eval()
        return self._engine(batch, state_BLC, drawn)

    def _sum(self, value: Tensor) -> Tensor:
        dist.all_reduce(value)
        return value

    def all_reduce(self, value: Tensor) -> Tensor:
        return self._sum(value)

    def close(self) -> None:
        """DeepSpeed's hooks and buffers refer to one another in ways that garbage collection does not resolve (0.4 to 2.5 GB stayed for
        each engine of a network of 0.08 GB), so everything is taken apart by hand. PyTorch gets its own ``linear`` back, which stage 3
        replaces for the whole process by one that rounds differently in bfloat16."""
        torch.nn.functional.linear = self._linear
        parameters = list(self._engine.module.parameters())
        zero = self._engine.optimizer
        self._engine.destroy()
        for p in parameters:
            p.grad = None
            p.data = torch.empty(0)
            if hasattr(p, "ds_tensor"):
                p.ds_tensor.data = torch.empty(0)
            p.__dict__.clear()
        for thing in (zero, self._engine, self):
            thing.__dict__.clear()

    def common(self) -> Mapping[str, Tensor]:
        """Stage 0: all state. Stages 1 and 2: the gathered weights. Stage 3: nothing."""
        if self.stage == 3 or self.context.world_size == 1:
            return {}
        if self.replicated:
            return self.updater.state()
        return {f"weight/{name}": p.detach() for name, p in self._engine.module.network.named_parameters()}

    def gather_weights(self, kind: str = "ema") -> dict[str, Tensor] | None:
        if self.replicated:
            return unflattened(self.updater.slices, self.updater.state(), kind) if self.context.is_main else None
        return gather_slices(self.updater.slices, self.updater.state(), kind)


def _prepare(context: WorkerContext) -> None:
    """Quiet logs, and no compilation of C++ at the first run: the shared-memory all-reduce op takes a minute and a compiler, and
    gloo does the same work."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if context.device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed(dist_backend="nccl" if context.device.type == "cuda" else "gloo", verbose=False)


BUCKET = 2**24
"""Elements of what DeepSpeed reduces, gathers or keeps gathered at a time. Its own values (5e8 and 1e9) exceed a network of 100 M weights:
stage 3 then gathers all of it, and stages 1 and 2 hold all gradients twice (docs/exactness.md, Memory)."""


def _settings(stage: int, world_size: int, accumulation: int) -> dict[str, Any]:
    sizes = {"reduce_bucket_size": BUCKET}
    if stage in (1, 2):
        sizes["allgather_bucket_size"] = BUCKET
    if stage == 3:
        kept = ("max_live_parameters", "max_reuse_distance", "prefetch_bucket_size")
        sizes |= {f"stage3_{name}": BUCKET for name in kept}
    return {
        "train_batch_size": world_size * accumulation,  # DeepSpeed only checks this product; rows are ours
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.0,
        "steps_per_print": 10**12,
        # One sub-group, so that stage 3 too calls the optimiser once per step with the whole partition.
        "zero_optimization": {"stage": stage, "sub_group_size": 10**15, "overlap_comm": False, **sizes},
    }
