"""Adam in two forms: the Nesterov one that goes with Muon in ELF (elf.md B), and AdamW (Loshchilov and Hutter 2019)."""

import math

import torch
from torch import Tensor

from elf.optim.rules import Recipe, Rule, is_matrix


class _AdamRule(Rule):
    kinds = ("exp_avg", "exp_avg_sq")

    def moments(self, grads: list[Tensor], step: int) -> tuple[list[Tensor], list[Tensor]]:
        """Both moments advanced by the gradients: the first as it is; of the second the root, bias corrected, plus eps."""
        beta1, beta2 = self.config.betas
        first, second = self.state["exp_avg"], self.state["exp_avg_sq"]
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, grads, alpha=1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, value=1 - beta2)
        root = list(torch._foreach_sqrt(second))
        torch._foreach_div_(root, math.sqrt(1 - beta2**step))
        torch._foreach_add_(root, self.config.eps)
        return first, root


class NesterovAdam(_AdamRule):
    """Adam whose first moment looks one step ahead (Dozat 2016), without weight decay."""

    def direction(self, grads: list[Tensor], step: int) -> list[Tensor]:
        """(b1 m / (1 - b1^(k+1)) + (1 - b1) g / (1 - b1^k)) / (sqrt(v / (1 - b2^k)) + eps) at step k."""
        if not grads:
            return []
        beta1 = self.config.betas[0]
        first, root = self.moments(grads, step)
        ahead = list(torch._foreach_mul(first, beta1 / (1 - beta1 ** (step + 1))))
        torch._foreach_add_(ahead, grads, alpha=(1 - beta1) / (1 - beta1**step))
        torch._foreach_div_(ahead, root)
        return ahead


class AdamW(_AdamRule):
    """Adam with decoupled weight decay on matrices alone: norms, biases and learned tokens are not pulled to zero."""

    def direction(self, grads: list[Tensor], step: int) -> list[Tensor]:
        """m / (1 - b1^k) / (sqrt(v / (1 - b2^k)) + eps) + decay * weight at step k."""
        if not grads:
            return []
        first, root = self.moments(grads, step)
        update = list(torch._foreach_div(first, root))
        torch._foreach_div_(update, 1 - self.config.betas[0] ** step)
        decayed = [i for i, s in enumerate(self.slices) if is_matrix(s.name, s.shape)]
        if self.config.weight_decay and decayed:
            weights = [self.slices[i].value for i in decayed]
            torch._foreach_add_([update[i] for i in decayed], weights, alpha=self.config.weight_decay)
        return update


ADAMW = Recipe(assign=lambda name, shape: "adamw", rules={"adamw": AdamW})
