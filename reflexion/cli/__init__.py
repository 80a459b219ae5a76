"""The command `reflexion`."""
