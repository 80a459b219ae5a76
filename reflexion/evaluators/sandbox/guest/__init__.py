"""What runs inside the sandbox. Standard library only, and nothing of the rest of this package.

Three kinds of process, all forked and none sharing memory with another:

- the *zygote* (`zygote.py`) is started once, isolates itself, and forks the two others for each job;
- the *solver* (`solver.py`) gets the untrusted code and nothing else: not the tests, not the channel to the
  host, no namespace in which it could see another process. It carries out what the tests ask of its objects;
- the *checker* (`checker.py`) runs the trusted tests. What the solution defines is stood for there.

Between the two lies a `Link` (`link.py`, like the others named here in `crossing/`) on each side. Values cross as data
(`values.py`) and are compared in the checker. Containers are kept in step on both sides (`shared.py`). Objects stay
where they are: `mirrors.py` makes a class with the same name, bases and operators, whose operators are carried out at
the other end (`operations.py`). An object of the solution judges itself only where a test is about its class and made
it. So a solution cannot forge a verdict: whatever it does to its own process, it can only return a value, or an object
that equals no value.
"""
