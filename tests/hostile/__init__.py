"""Input that must be refused, in tables: of Python functions, of files, of commands and configs."""
