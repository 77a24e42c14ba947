"""Where and how cached partitions are kept: in memory, on disk, in shared memory; as objects or as bytes; how often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Final

from flowkit.errors import InvalidArgument
from flowkit.model.advice import Advising, public

_MOST_REPLICAS: Final = 8


@public("StorageLevel")
@dataclass(frozen=True, slots=True)
class StorageLevel(metaclass=Advising):
    """How an RDD's partitions are kept. The names are Spark's, and so is the order of the arguments.

    Parameters
    ----------
    use_disk
        On disk: what memory has no room for where ``use_memory`` is true, else everything.
    use_memory
        In the executor's memory, within its budget.
    use_off_heap
        In memory that all executors of a host share; serialised.
    deserialized
        As the objects they are: nothing to decode, but several times as large as bytes.
    replication
        In how many executors, on different hosts as far as there are any; copies in files are on different hosts, or there are none.
    by_reference
        Whether those who read objects get the very objects that are kept: no copy is made, and whoever changes one changes what the
        next job reads. Else each reader has rows of its own (``docs/memory.md`` says how, and at what cost).

    Examples
    --------
    >>> StorageLevel.MEMORY_AND_DISK
    StorageLevel.MEMORY_AND_DISK
    >>> print(StorageLevel.MEMORY_AND_DISK_SER)
    Disk Memory Serialized 1x Replicated
    >>> StorageLevel(True, False, False, False) == StorageLevel.DISK_ONLY
    True
    """

    use_disk: bool
    use_memory: bool
    use_off_heap: bool = False
    deserialized: bool = False
    replication: int = 1
    by_reference: bool = False

    NONE: ClassVar[StorageLevel]
    DISK_ONLY: ClassVar[StorageLevel]
    MEMORY_ONLY: ClassVar[StorageLevel]
    MEMORY_ONLY_SER: ClassVar[StorageLevel]
    MEMORY_AND_DISK: ClassVar[StorageLevel]
    MEMORY_AND_DISK_SER: ClassVar[StorageLevel]
    OFF_HEAP: ClassVar[StorageLevel]
    DISK_ONLY_2: ClassVar[StorageLevel]
    MEMORY_ONLY_2: ClassVar[StorageLevel]
    MEMORY_ONLY_SER_2: ClassVar[StorageLevel]
    MEMORY_AND_DISK_2: ClassVar[StorageLevel]
    MEMORY_AND_DISK_SER_2: ClassVar[StorageLevel]
    DISK_ONLY_3: ClassVar[StorageLevel]
    MEMORY_ONLY_BY_REFERENCE: ClassVar[StorageLevel]
    MEMORY_AND_DISK_BY_REFERENCE: ClassVar[StorageLevel]

    def __post_init__(self) -> None:
        if type(self.replication) is not int or not 1 <= self.replication <= _MOST_REPLICAS:
            self._refuse("replication", f"must be from 1 to {_MOST_REPLICAS}")
        if self.deserialized and not self.use_memory:
            self._refuse("deserialized", "only memory holds objects; disks hold bytes")
        if self.use_off_heap and (self.deserialized or not self.use_memory):
            self._refuse("use_off_heap", "shared memory holds bytes, and is memory: use_memory=True, deserialized=False")
        if self.by_reference and not self.deserialized:
            self._refuse("by_reference", "only objects can be referred to: deserialized=True")

    def _refuse(self, name: str, why: str) -> None:
        value = getattr(self, name)
        raise InvalidArgument(f"storage level with {name} = {value!r}: {why}", name=name, value=value, allowed=why)

    @property
    def is_kept(self) -> bool:
        """Whether anything is kept at all."""
        return self.use_disk or self.use_memory

    @property
    def name(self) -> str:
        """``MEMORY_AND_DISK``; empty for a level that has no name."""
        return _NAMES.get(self, "")

    def __repr__(self) -> str:
        if self.name:
            return f"StorageLevel.{self.name}"
        return (
            f"StorageLevel({self.use_disk}, {self.use_memory}, {self.use_off_heap}, {self.deserialized}, "
            f"replication={self.replication}{', by_reference=True' if self.by_reference else ''})"
        )

    def __str__(self) -> str:
        places = (("Disk", self.use_disk), ("Memory", self.use_memory), ("OffHeap", self.use_off_heap))
        kept = " ".join(word for word, used in places if used)
        held = "By Reference" if self.by_reference else "Deserialized" if self.deserialized else "Serialized"
        return f"{kept} {held} {self.replication}x Replicated".strip()


StorageLevel.NONE = StorageLevel(False, False)
StorageLevel.DISK_ONLY = StorageLevel(True, False)
StorageLevel.MEMORY_ONLY = StorageLevel(False, True, deserialized=True)
StorageLevel.MEMORY_ONLY_SER = StorageLevel(False, True)
StorageLevel.MEMORY_AND_DISK = StorageLevel(True, True, deserialized=True)
StorageLevel.MEMORY_AND_DISK_SER = StorageLevel(True, True)
StorageLevel.OFF_HEAP = StorageLevel(True, True, True)
for _name in ("DISK_ONLY", "MEMORY_ONLY", "MEMORY_ONLY_SER", "MEMORY_AND_DISK", "MEMORY_AND_DISK_SER"):
    setattr(StorageLevel, f"{_name}_2", replace(getattr(StorageLevel, _name), replication=2))
StorageLevel.DISK_ONLY_3 = replace(StorageLevel.DISK_ONLY, replication=3)
StorageLevel.MEMORY_ONLY_BY_REFERENCE = replace(StorageLevel.MEMORY_ONLY, by_reference=True)
StorageLevel.MEMORY_AND_DISK_BY_REFERENCE = replace(StorageLevel.MEMORY_AND_DISK, by_reference=True)
_NAMES: Final = {level: name for name, level in vars(StorageLevel).items() if isinstance(level, StorageLevel)}
