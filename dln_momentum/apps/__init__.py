"""What each command does, from a checked config to a directory of results."""
