"""Lineage: what an RDD is made of, cut into stages. Pure: no IO, no cluster; the scheduler never sees it."""
