"""Training through Lightning: the module, the data module, the callbacks and the run."""

from dln_momentum.training.importing import import_torchmetrics

import_torchmetrics()
