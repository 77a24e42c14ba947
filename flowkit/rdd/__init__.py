"""The DSL: an RDD is a thin, lazy face over a lineage node."""
