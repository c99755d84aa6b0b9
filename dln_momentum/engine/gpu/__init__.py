"""The kernel of the poster's method on a GPU; see `dln_momentum.engine.gpu.kernel`."""
