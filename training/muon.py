"""The optimiser: Muon on the matrices inside the networks, Adam on the rest, in few and large operations.

Equal matrices are orthogonalised together. Everything that changes from step to step lies in tensors on the device, so
that a whole training step can be recorded once and replayed. Muon: Keller Jordan, https://kellerjordan.github.io/posts/muon/
(read, then written for stacks of matrices). Knows nothing of losses, data or schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from training.recipe import Optimisation

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_MOMENTUM = 0.95
_BETAS = (0.9, 0.98)
_EPS = 1e-8
_EDGES = ("embed", "_proj.weight", "post_kl", "pre_kl", "final", "head", "pos_emb")


def is_inner(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter is a matrix inside a network, neither its first nor its last projection."""
    edge = any(part in name for part in _EDGES)
    inner = ("out_proj" in name or "c_proj" in name or ".attention." in name) and "input" not in name
    return parameter.dim() == 2 and (inner or not edge)


def _matrices(group: list[Tensor]) -> Tensor:
    """Stack tensors of one shape as matrices (K, M, N): what follows the first axis is one row."""
    return torch.stack([each.detach().flatten(1) for each in group])


def _turn(group: list[Tensor], changes: list[Tensor], rate: Tensor) -> None:
    """Move matrices by a share of their size, and bring them back to that size."""
    sizes, steps = torch._foreach_norm(group), torch._foreach_norm(changes)
    shares = [-rate * size / step.clamp_min(_EPS) for size, step in zip(sizes, steps, strict=True)]
    torch._foreach_mul_(changes, shares)
    torch._foreach_add_(group, changes)
    after = torch._foreach_norm(group)
    torch._foreach_mul_(group, [size / now.clamp_min(_EPS) for size, now in zip(sizes, after, strict=True)])


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return nearly the nearest matrices (K, M, N) whose singular values are all 1."""
    a, b, c = _COEFFICIENTS
    # On a CPU half precision takes many times as long, whatever the processor says of itself.
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Optimiser:
    """Updates of all parameters from their gradients. Rates are set from outside, before each step.

    settings : peak rates, weight decay of the matrices, and the norm that gradients are cut to. inner : which
    parameters are Muon's; a convolution's kernel is the matrix of its output channels. relative : Muon's rate is a
    share of each matrix's own size, which stays as it is. Where a normalisation follows, as in most convolutional
    networks, a matrix's size means nothing, and would grow and so make its steps smaller.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        settings: Optimisation,
        inner: Callable[[str, Tensor], bool] = is_inner,
        *,
        relative: bool = False,
    ) -> None:
        self.settings, self._relative = settings, relative
        self.groups: list[list[Tensor]] = []
        self.rest: list[Tensor] = []
        shapes: dict[torch.Size, list[Tensor]] = {}
        for name, parameter in named:
            if inner(name, parameter):
                shapes.setdefault(parameter.shape, []).append(parameter)
            else:
                self.rest.append(parameter)
        self.groups = list(shapes.values())
        device = next(p.device for p in (*self.rest, *(p for group in self.groups for p in group)))
        self.momentum = [torch.zeros_like(_matrices(group)) for group in self.groups]
        self.first = [torch.zeros_like(p) for p in self.rest]
        self.second = [torch.zeros_like(p) for p in self.rest]
        self.muon_rate, self.adam_rate = torch.zeros((), device=device), torch.zeros((), device=device)
        self.decays = torch.ones(2, device=device)
        self.norm = torch.zeros((), device=device)

    def set_rates(self, factor: float) -> None:
        """Give both parts their peak rates times a factor."""
        self.muon_rate.fill_(self.settings.muon_lr * factor)
        self.adam_rate.fill_(self.settings.adam_lr * factor)

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters; a step whose gradients are not finite changes none."""
        parameters = [*self.rest, *(p for group in self.groups for p in group)]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self.norm.copy_(norm)
        scale = (self.settings.clip / (norm + 1e-6)).clamp(max=1.0)
        fine = torch.isfinite(norm)
        scale = torch.where(fine, scale, torch.zeros_like(scale))
        gradients = [torch.where(fine, g, torch.zeros_like(g)) for g in torch._foreach_mul(gradients, scale)]
        self._adam(gradients[: len(self.rest)], self.adam_rate * fine)
        start = len(self.rest)
        for group, momentum in zip(self.groups, self.momentum, strict=True):
            self._muon(group, momentum, _matrices(gradients[start : start + len(group)]), self.muon_rate * fine)
            start += len(group)

    def _adam(self, gradients: list[Tensor], rate: Tensor) -> None:
        if not gradients:
            return
        for power, beta in zip(self.decays, _BETAS, strict=True):
            power.mul_(beta)
        torch._foreach_lerp_(self.first, gradients, 1 - _BETAS[0])
        torch._foreach_mul_(self.second, _BETAS[1])
        torch._foreach_addcmul_(self.second, gradients, gradients, 1 - _BETAS[1])
        corrections = 1 - self.decays
        roots = torch._foreach_sqrt(self.second)
        torch._foreach_mul_(roots, corrections[1].rsqrt())
        torch._foreach_add_(roots, _EPS)
        updates = list(torch._foreach_div(self.first, roots))
        torch._foreach_mul_(updates, -rate / corrections[0])
        torch._foreach_add_(self.rest, updates)

    def _muon(self, group: list[Tensor], momentum: Tensor, gradient: Tensor, rate: Tensor) -> None:
        momentum.lerp_(gradient, 1 - _MOMENTUM)
        update = orthogonalised(gradient.lerp(momentum, _MOMENTUM)).float()
        changes = [one.view_as(own) for one, own in zip(update, group, strict=True)]
        if self._relative:
            _turn(group, changes, rate)
            return
        rows, columns = update.shape[-2:]
        # A tall matrix's update is scaled so that its rows are changed as much as a square one's.
        torch._foreach_mul_(changes, -rate * max(1.0, rows / columns) ** 0.5)
        torch._foreach_mul_(group, 1 - rate * self.settings.weight_decay)
        torch._foreach_add_(group, changes)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return what a run that goes on needs."""
        return {"momentum": self.momentum, "first": self.first, "second": self.second, "decays": [self.decays]}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Take over a saved state."""
        for name, saved in state.items():
            own = [self.decays] if name == "decays" else getattr(self, name)
            for mine, theirs in zip(own, saved, strict=True):
                mine.copy_(theirs)
