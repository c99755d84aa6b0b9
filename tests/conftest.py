"""One thread a process, and examples that are the same in every run.

The suite runs in parallel, and small tensors gain nothing from more threads. Hypothesis draws other
examples with ``HYPOTHESIS_PROFILE=random``. Tables are as wide as their tests want them, not as the
terminal that the suite runs in. What was measured on this machine and kept in the user's cache is
not read: a file is no folder.
"""

from __future__ import annotations

import os

import torch
from hypothesis import settings

os.environ.pop("COLUMNS", None)
os.environ["DLN_MOMENTUM_CACHE"] = os.devnull

torch.set_num_threads(1)
# a deadline would fail on a busy machine
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
