"""One thread a process, and examples that are the same in every run.

The suite runs in parallel, and small tensors gain nothing from more threads. Hypothesis draws other
examples with ``HYPOTHESIS_PROFILE=random``.
"""

from __future__ import annotations

import os

import torch
from hypothesis import settings

torch.set_num_threads(1)
# a deadline would fail on a busy machine
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
