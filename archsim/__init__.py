"""When: the simulator, its results and the command line."""
