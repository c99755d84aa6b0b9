"""The command line: Hydra apps, one file each."""
