"""How values and objects cross between the process of the tests and that of the solution."""
