"""What a notebook uses: train, flow, verify and sweep as functions, without Hydra or Lightning."""
