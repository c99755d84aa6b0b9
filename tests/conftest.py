"""One thread a process: the suite runs in parallel, and small tensors gain nothing from more.

Tables are as wide as where their tests want them, not as the terminal that the suite runs in.
"""

from __future__ import annotations

import os

import torch

os.environ.pop("COLUMNS", None)
torch.set_num_threads(1)
