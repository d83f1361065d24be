"""The event engine: when each instruction of a program starts and ends."""
