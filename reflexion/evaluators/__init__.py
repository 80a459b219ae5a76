"""What judges an answer: comparisons, Python tests in a sandbox, judges, your own function."""
