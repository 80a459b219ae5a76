"""What runs inside the sandbox. Standard library only, and nothing of the rest of this package.

Three kinds of process, all forked and none sharing memory with another:

- the *zygote* (`zygote.py`) is started once, isolates itself, and forks the two others for each job;
- the *solver* (`solver.py`) gets the untrusted code and nothing else: not the tests, not the channel to the
  host, no namespace in which it could see another process. It answers calls with values;
- the *checker* (`checker.py`) runs the trusted tests, in which the function under test is a proxy that calls
  the solver. Values come back as data (`values.py`) and are compared here, so a solution cannot forge a
  verdict: whatever it does to itself, it can only return a value or fail to.
"""
