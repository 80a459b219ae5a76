"""Figures: response times, memory, cache hits, errors, and the targets they are held against."""
