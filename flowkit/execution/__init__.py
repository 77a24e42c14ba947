"""Inside an executor: the life of a task, its context, and the loops that compute partitions."""
