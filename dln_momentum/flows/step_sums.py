"""What happened between the kept times of a path, summed over the steps of the solver."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class StepSums:
    """Sums over the steps of the solver in each of K intervals between kept times.

    Attributes:
        definition: I_+- by its definition, over every step, [2, K, d]; of gradient flow [2, K, 0].
        regularised: the same, with the regular form in steps near a zero of w_+-, likewise.
        error_estimate: of ``regularised``, likewise.
        sign_changes: of the entries of w_+-, [K].
        skipped: the time for which the regular form stands in, in all intervals, [2, d].
    """

    definition: Tensor
    regularised: Tensor
    error_estimate: Tensor
    sign_changes: Tensor
    skipped: Tensor

    def __len__(self) -> int:
        return len(self.sign_changes)

    def with_room(self, intervals: int) -> StepSums:
        """These, with room for further intervals, which `put` writes."""

        def longer(values: Tensor, axis: int) -> Tensor:
            shape = [*values.shape[:axis], intervals, *values.shape[axis + 1 :]]
            return values.new_empty(shape)

        room = StepSums(
            longer(self.definition, 1),
            longer(self.regularised, 1),
            longer(self.error_estimate, 1),
            longer(self.sign_changes, 0),
            torch.zeros_like(self.skipped),
        )
        room.put(0, self)
        return room

    def put(self, first: int, part: StepSums) -> None:
        """Write the intervals from ``first`` on."""
        here = slice(first, first + len(part))
        self.definition[:, here] = part.definition
        self.regularised[:, here] = part.regularised
        self.error_estimate[:, here] = part.error_estimate
        self.sign_changes[here] = part.sign_changes
        self.skipped.add_(part.skipped)

    def merged(self, places: Tensor) -> StepSums:
        """The sums between fewer times: ``places`` among the K + 1, the first and the last too.

        >>> one = torch.ones(1, 3, 1)
        >>> sums = StepSums(one, one, one, torch.tensor([0, 1, 1]), torch.zeros(1, 1))
        >>> sums.merged(torch.tensor([0, 2, 3])).sign_changes.tolist()
        [1, 1]
        """
        count = len(places) - 1
        # the interval that each of the present ones becomes part of
        target = torch.searchsorted(places, torch.arange(len(self)), right=True) - 1

        def added(values: Tensor, axis: int) -> Tensor:
            shape = [*values.shape[:axis], count, *values.shape[axis + 1 :]]
            return values.new_zeros(shape).index_add_(axis, target, values)

        return StepSums(
            added(self.definition, 1),
            added(self.regularised, 1),
            added(self.error_estimate, 1),
            added(self.sign_changes, 0),
            self.skipped,
        )
