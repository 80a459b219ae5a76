"""Models that pass requests on to another model: with a budget, a recording, or several in one call."""
