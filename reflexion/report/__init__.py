"""A run as something to look at: one HTML file, and the comparison of two runs."""
