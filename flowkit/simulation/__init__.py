"""A cluster without a cluster: the real scheduler core, executors that compute nothing, and a clock that is only a number.

Runs wherever it is called, in one thread. Tests of the core stand on it, ``make simulate`` measures the core with it at sizes no test
machine has, and ``what_if`` asks it how long a recorded job would have taken elsewhere.
"""
