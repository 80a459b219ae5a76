"""Carries a dataset out: from what was asked for to a folder with every episode."""
