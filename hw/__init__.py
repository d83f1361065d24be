"""Is: the machine in Amaranth, one block a file."""
