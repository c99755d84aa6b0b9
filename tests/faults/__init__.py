"""What goes wrong around a command: it is killed, the disk is full, a file is damaged."""
