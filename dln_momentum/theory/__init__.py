"""The formulas of the theory, one statement a file; nothing here integrates or trains anything."""
