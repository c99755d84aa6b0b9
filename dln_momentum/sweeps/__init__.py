"""A grid of runs from one config, trained together and kept in one labelled file."""
