"""DRAM, command by command: channels, their rules compiled, and an independent check."""
