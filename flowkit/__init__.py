"""flowkit: lazy RDDs, cut into stages, run by a scheduler of its own on Dask workers."""
