"""What the engine carries from step to step, for R runs at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from dln_momentum.engine.status import Status
from dln_momentum.errors import InputError, raise_if_any

NOT_SUMMED, TELESCOPED, DIRECT = 0, 1, 2
"""How S_+- is summed from the iterates, if it is; gpu/advance.cu has the same numbers."""

Layout = tuple[torch.Size, torch.dtype]
"""Shape and type of a tensor."""


@dataclass
class State:
    """R runs of heavy ball, in the coordinates in which a step is cheapest.

    Iterates are stored as ``sqrt(gamma) w / 2``: then w_+^2 - w_-^2 is gamma theta, and the step
    size disappears from the update. The past is stored as ``p_k = w_k - beta w_{k-1}``, because

        p_{k+1} = p_k - gamma g_k * w_k,    w_{k+1} = p_{k+1} + beta w_k

    is two passes over memory and does not cancel. Index 0 of the first axis is w_+, index 1 w_-.
    Methods other than the poster's are stored as w/2 (u and v themselves at a depth D > 2), with
    the last increment for ``p``; see `dln_momentum.engine.stored_family`.
    The state is kept across blocks and checkpoints exactly as the kernels left it, so that
    neither changes a single bit of a run.
    """

    w: Tensor
    """sqrt(gamma) w / 2, [2, R, d]"""
    p: Tensor
    """w_k - beta w_{k-1} in the same scale, [2, R, d]"""
    residual_sum: Tensor
    """sum of the (batch-weighted) residuals gamma (X theta - y)/sqrt(n), [R, n]"""
    sign_changes: Tensor
    """steps at which an entry of w_+ or w_- changed its sign, over all entries, [R] int64"""
    loss: Tensor
    """the full-batch training loss at the present step, [R]"""
    loss_start: Tensor
    """the same at step 0, [R]"""
    steps: Tensor
    """steps taken, [R] int64; where a run has ended, the step at which it did"""
    status: Tensor
    """`Status` as int64, [R]"""
    path_sums: Tensor | None = None
    """what is summed from the iterates for S_+-, [2, R, d], absent for ``gradient_sum``:
    sum_k [r(a_k) + beta r(1/a_k)]/(1-beta), a_k = w_{k+1}/w_k, if ``direct``;
    sum_k (w_{k+1} - w_k)(1/w_k - beta/w_{k+1}), if ``telescoped``"""
    increment_products: Tensor | None = None
    """sum of dw_+ dw_- in the scale of w^2, [R, d]; absent for ``gradient_sum``"""
    summed_until: Tensor | None = None
    """the iterate that the telescoped sum has come to, [2, R, d]: it is w unless something else
    has written to w, and then the way from here to there counts as a step"""
    recent_sums: Tensor | None = None
    """T_k of the forward form of S_+-, [2, R, d]; this and what follows for the general kernels"""
    recent_residual: Tensor | None = None
    """H_k = gamma_k r_k + beta_k H_{k-1}, whose sum is `residual_sum`, [R, n]"""
    decays: Tensor | None = None
    """the same of the coupled decay in the place of r_k, and the sum of it or of -ln(1 - eta_k),
    [R, 2]; absent without decay"""

    @classmethod
    def at_start(
        cls, w: Tensor, increment: Tensor | None, beta: Tensor, n: int, path_sums: str
    ) -> State:
        """The state at step 0 from scaled w_1 [2, R, d], which it keeps, w_1 - w_0 and beta [R]."""
        # (1 - beta) w_1 + beta (w_1 - w_0), since w_1 - beta w_0 would cancel
        p = w * (1 - beta)[:, None]
        if increment is not None:
            p += beta[:, None] * increment
        summed = path_sums != "gradient_sum"
        return cls._of(
            w,
            p,
            n,
            path_sums=torch.zeros_like(w) if summed else None,
            increment_products=torch.zeros_like(w[0]) if summed else None,
            summed_until=w.clone() if path_sums == "telescoped" else None,
        )

    @classmethod
    def of_family(cls, *, w: Tensor, p: Tensor, n: int, recent_sums: Tensor, decays: bool) -> State:
        """The state at step 0 for the general kernels, from tensors that it keeps."""
        runs = w.shape[1]
        return cls._of(
            w,
            p.contiguous(),
            n,
            path_sums=torch.zeros_like(w),
            summed_until=w.clone(),
            recent_sums=recent_sums.contiguous(),
            recent_residual=w.new_zeros(runs, n),
            decays=w.new_zeros(runs, 2) if decays else None,
        )

    @classmethod
    def _of(cls, w: Tensor, p: Tensor, n: int, **sums: Tensor | None) -> State:
        """What every method has at step 0, and the sums of one."""
        runs = w.shape[1]
        counts = torch.zeros(runs, dtype=torch.int64, device=w.device)
        return cls(
            w=w,
            p=p,
            residual_sum=w.new_zeros(runs, n),
            sign_changes=counts.clone(),
            loss=w.new_full((runs,), torch.nan),
            loss_start=w.new_full((runs,), torch.nan),
            steps=counts.clone(),
            status=counts + int(Status.RUNNING),
            **sums,
        )

    def __post_init__(self) -> None:
        self._first = _layout_of(vars(self))

    @property
    def summing(self) -> int:
        """One of `NOT_SUMMED`, `TELESCOPED`, `DIRECT`."""
        if self.path_sums is None:
            return NOT_SUMMED
        return DIRECT if self.summed_until is None else TELESCOPED

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all tensors by name, for a checkpoint."""
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor.clone() for name, tensor in present.items() if tensor is not None}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Take every tensor from a checkpoint of a state of the same kind and shape.

        Raises:
            InputError: where names, shapes or types differ, and for a status that no run has.
        """
        if not isinstance(saved, Mapping):
            raise InputError(f"checkpoint is a {type(saved).__name__}; it must hold tensors")
        raise_if_any(
            f"checkpoint holds {difference}" for difference in _differences(saved, self._first)
        )
        wrong = {*saved["status"].tolist()} - {*Status}
        if wrong or bool((saved["steps"] < 0).any()):
            raise InputError(
                f"checkpoint holds status {sorted(wrong)} and least steps "
                f"{int(saved['steps'].min())}; must be in {[*map(int, Status)]}, and >= 0"
            )
        for name, tensor in saved.items():
            setattr(self, name, tensor.detach().to(self.w.device, copy=True).contiguous())

    def check(self) -> None:
        """Raise `InputError` if something else has put tensors here that no kernel can take."""
        now = {field.name: getattr(self, field.name) for field in fields(self)}
        raise_if_any(f"state: {difference}" for difference in _differences(now, self._first))
        raise_if_any(
            f"state: {name} must be contiguous, on {self.w.device} and without grad"
            for name in self._first
            if not (tensor := now[name]).is_contiguous()
            or tensor.requires_grad
            or tensor.device != self.w.device
        )


def _layout_of(tensors: Mapping[str, Any]) -> dict[str, Layout]:
    """Shape and type of each tensor."""
    return {k: (t.shape, t.dtype) for k, t in tensors.items() if isinstance(t, Tensor)}


def _differences(tensors: Mapping[str, Any], expected: Mapping[str, Layout]) -> Iterator[str]:
    """Which tensors are not as they should be, one line each."""
    found = _layout_of(tensors)
    if found == expected:
        return
    for name in {**expected, **found}:
        own, wanted = (
            "no tensor" if layout is None else f"{[*layout[0]]} {layout[1]}"
            for layout in (found.get(name), expected.get(name))
        )
        if own != wanted:
            yield f"{name} = {own}, must be {wanted}"
