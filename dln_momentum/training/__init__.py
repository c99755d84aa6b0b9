"""Training through Lightning: the module, the data module, the callbacks and the run."""
