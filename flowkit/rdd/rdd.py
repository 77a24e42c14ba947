"""The RDD: all that the DSL knows, on one class. Runs on the driver."""

from __future__ import annotations

from typing import TypeVar

from flowkit.model.advice import Advising, public
from flowkit.rdd.approximate import Approximate
from flowkit.rdd.asynchronous import Asynchronous
from flowkit.rdd.narrow import Narrow
from flowkit.rdd.needs import Needs
from flowkit.rdd.numeric import Numeric
from flowkit.rdd.pairs import Pairs
from flowkit.rdd.persistence import Persistence
from flowkit.rdd.sampling import Sampling
from flowkit.rdd.shapes import Shapes
from flowkit.rdd.sinks import Sinks
from flowkit.rdd.wide import Wide

T = TypeVar("T")


@public("RDD", internal=("__init__",))
class RDD(
    Narrow[T],
    Wide[T],
    Shapes[T],
    Sampling[T],
    Pairs[T],
    Asynchronous[T],
    Approximate[T],
    Numeric[T],
    Sinks[T],
    Persistence[T],
    Needs[T],
    metaclass=Advising,
):
    """A resilient distributed dataset: a recipe for elements in partitions, computed when an action asks, recomputed when lost.

    Made by a ``Context`` and by transformations of other RDDs. Transformations are lazy and return new RDDs; actions run a job
    and return plain values. Each docstring says what it costs.

    The idea is that of Zaharia et al., *Resilient Distributed Datasets: A Fault-Tolerant Abstraction for In-Memory Cluster
    Computing*, NSDI 2012.

    Examples
    --------
    >>> from operator import add
    >>> words = fc.parallelize(["to be or not", "to be"]).flat_map(str.split)
    >>> sorted(words.map(lambda word: (word, 1)).reduce_by_key(add).collect())
    [('be', 2), ('not', 1), ('or', 1), ('to', 2)]
    """

    __slots__ = ()
