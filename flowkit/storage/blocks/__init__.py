"""Cached partitions of one executor."""
