"""The command line: one file a command, around one lifecycle (`job`)."""
