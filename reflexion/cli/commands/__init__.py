"""The commands of `reflexion`, one module each, imported only when asked for."""
