"""Batch normalisation over the batch that several processes share."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganlib.training.team import Team


class JoinedBatchNorm(nn.Module):
    """The batch normalisation given, with the mean and variance of all processes' rows, of which each has as many.

    Of W processes with means m_r and variances v_r: m = Σ m_r / W, v = Σ (v_r + (m_r - m)²) / W, without the loss of
    digits of E x² - m² (Chan et al. 1979, "Updating formulae"). Parameters and buffers keep their names. Unlike
    torch's SyncBatchNorm it runs on processors too, and its gradient can be differentiated again.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: _BatchNorm, team: Team) -> None:
        super().__init__()
        self.team, self.eps, self.momentum = team, norm.eps, norm.momentum
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.train(norm.training)

    def forward(self, x: Float[Tensor, "batch channels *rest"]) -> Float[Tensor, "batch channels *rest"]:
        if not self.training and self.running_mean is not None and self.running_var is not None:
            mean, variance = self.running_mean, self.running_var
        else:
            mean, variance, count = self._statistics(x)
            self._remember(mean.detach(), variance.detach() * (count / max(count - 1, 1)))
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        shape = (1, -1, *[1] * (x.ndim - 2))
        return torch.addcmul(shift.view(shape), _at_least_float32(x), scale.view(shape)).to(x.dtype)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """Mean and variance of each channel, and of how many numbers."""
        dims = [0, *range(2, x.ndim)]
        variance, mean = torch.var_mean(_at_least_float32(x), dims, correction=0)
        own = mean.new_zeros(self.team.size, 2, x.shape[1])
        own = own.index_put((torch.tensor(self.team.rank, device=x.device),), torch.stack([mean, variance]))
        means, variances = _Sum.apply(own, self.team).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        return mean, variance, self.team.size * x.numel() // x.shape[1]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, as torch's own batch normalisation does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        if not self.training:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Sum(torch.autograd.Function):
    """The sum over all processes. The gradient of the sum of all their losses is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, team: Team) -> Tensor:
        ctx.team = team
        return team.sum(own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(gradients[0], ctx.team), None  # type: ignore[return-value]


def join_statistics(network: nn.Module, team: Team) -> nn.Module:
    """Replace every batch normalisation of the network, in place; nothing changes for a team of one."""
    if not team.alone:
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, _BatchNorm):
                    setattr(parent, name, JoinedBatchNorm(child, team))
    return network
