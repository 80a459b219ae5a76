"""Takes rights away from the processes of tests and solution."""
