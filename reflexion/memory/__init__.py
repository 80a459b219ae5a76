"""The episodic memory: lessons of earlier trials, of this problem and of similar ones."""
