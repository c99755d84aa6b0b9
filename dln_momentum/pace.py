"""How many steps to take at once: enough to hide a block's fixed cost, few enough to stop soon."""

from __future__ import annotations

BLOCK_SECONDS = 0.1
"""What a block should take: Ctrl-C, a checkpoint by the clock and a progress bar wait for its end,
and the 0.5 ms that a block costs whatever its length is (Lightning's part included) are a part in
two hundred of it."""

FIRST_STEPS, FIRST_WORK = 100, 10**8
"""Steps of the first block, and entries of X times runs that it passes over, at most: some 0.05 s
of one core."""


class Pace:
    """The length of the next block of steps, from how long the last one took.

    A block's fixed cost makes its steps look slower than they are, so that a short block never
    makes the next one too long. No number of a run depends on the lengths.

    Args:
        work: n d R, the entries of X times the runs, which a step passes over twice.

    >>> pace = Pace(work=20 * 30)
    >>> pace.steps
    100
    >>> pace.measured(steps=100, seconds=2e-4)
    >>> pace.steps
    50000
    """

    def __init__(self, work: int) -> None:
        self.steps = max(1, min(FIRST_STEPS, FIRST_WORK // max(1, work)))

    def measured(self, steps: int, seconds: float) -> None:
        """Note how long a block of so many steps took; a block of none says nothing."""
        if steps > 0:
            # a clock may stand still for a very short block
            self.steps = max(1, int(BLOCK_SECONDS * steps / max(seconds, 1e-6)))
