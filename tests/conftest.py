"""One thread a process: the suite runs in parallel, and small tensors gain nothing from more.

Tables are as wide as where their tests want them, not as the terminal that the suite runs in.
What was measured on this machine and kept in the user's cache is not read: a file is no folder.
"""

from __future__ import annotations

import os

import torch

os.environ.pop("COLUMNS", None)
os.environ["DLN_MOMENTUM_CACHE"] = os.devnull

torch.set_num_threads(1)
