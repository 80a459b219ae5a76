"""The method, without any I/O of its own: trial, evaluate, reflect, memorize, and again."""
