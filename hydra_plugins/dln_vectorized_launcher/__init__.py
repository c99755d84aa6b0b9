"""The plugin that Hydra finds under ``hydra_plugins``, the only place it looks for launchers."""
