"""Rows and Arrow tables: values become columns exactly or not at all, and columns of several types become one.

Runs on drivers and executors; stateless. Imported only by what reads or writes tables, since it imports pyarrow.
"""
