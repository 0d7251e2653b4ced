"""The optimiser: one rule per group, over slices of parameters. It knows no ranks: the caller may pass an Orthogonalise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from elf.optim.assign import OPTIMIZERS, assign_groups
from elf.optim.config import OptimConfig
from elf.optim.muon import orthogonalise_locally
from elf.optim.slices import Orthogonalise, ParamSlice


class Optimizer:
    """Updates master weights in place from gradients in the order of the slices.

    The default ``orthogonalise`` needs whole matrices; where a rank holds pieces, the caller passes one that gathers them.
    """

    def __init__(
        self, slices: Sequence[ParamSlice], config: OptimConfig, *, orthogonalise: Orthogonalise = orthogonalise_locally
    ) -> None:
        names = [s.name for s in slices]
        assert len(set(names)) == len(names), "two slices of one parameter: its state would have two tensors of one name"
        for s in slices:
            assert s.value.dtype == torch.float32, f"{s.name}: master weights are {s.value.dtype}, not float32"
            assert s.value.shape == (s.stop - s.start,), f"{s.name}: {tuple(s.value.shape)} values for [{s.start}, {s.stop})"
        self.slices = list(slices)
        self.counters: dict[str, int] = {"step": 0}
        """Updates done; with ``state`` all that a resume has to restore."""
        self.groups = assign_groups({s.name: s.shape for s in slices}, config)
        """Group of each parameter that has a slice here."""
        recipe = OPTIMIZERS[config.name]
        self._members = {
            group: [i for i, s in enumerate(self.slices) if self.groups[s.name] == group] for group in recipe.rules
        }
        self._rules = {
            group: rule([self.slices[i] for i in self._members[group]], config, orthogonalise)
            for group, rule in recipe.rules.items()
        }
        self._device = self.slices[0].value.device if self.slices else torch.device("cpu")
        self._update_sq_norms = {group: torch.zeros((), device=self._device) for group in recipe.rules}

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor], *, lr: float) -> None:
        """One update. grads: float32 [stop - start] each, raw or clipped, in the order of the slices; left unchanged."""
        assert len(grads) == len(self.slices), f"{len(grads)} gradients for {len(self.slices)} slices"
        self.counters["step"] += 1
        for group, rule in self._rules.items():
            direction = rule.direction([grads[i] for i in self._members[group]], self.counters["step"])
            if direction:
                torch._foreach_add_([s.value for s in rule.slices], direction, alpha=-lr)
            self._update_sq_norms[group] = self._sum_of_squares(direction) * lr**2

    def state(self) -> dict[str, Tensor]:
        """Live flat state tensors, keyed "kind/parameter name"; copying into them restores a saved state."""
        return {
            f"{kind}/{s.name}": tensor
            for rule in self._rules.values()
            for kind, tensors in rule.state.items()
            for s, tensor in zip(rule.slices, tensors, strict=True)
        }

    def update_sq_norms(self) -> dict[str, Tensor]:
        """Sum of squares over the local slices of the last change of the weights (learning rate included), float32, per group."""
        return dict(self._update_sq_norms)

    @torch.no_grad()
    def grad_sq_norms(self, grads: Sequence[Tensor]) -> dict[str, Tensor]:
        """Sum of squares over the local slices of these gradients, float32, per group; every group is there on every rank."""
        return {group: self._sum_of_squares([grads[i] for i in members]) for group, members in self._members.items()}

    def _sum_of_squares(self, tensors: list[Tensor]) -> Tensor:
        if not tensors:
            return torch.zeros((), device=self._device)
        return torch.stack(torch._foreach_norm(tensors)).square().sum()
