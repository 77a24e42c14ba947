"""A Dask cluster in this machine's cores, for those who have none: scheduler in this process, workers in their own.

Runs in the driver. One worker process per core by default, since Python functions hold the interpreter lock.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
from typing import Any

import dask
from distributed.system import MEMORY_LIMIT

from flowkit.cluster import dask_internals
from flowkit.cluster.embedded_checks import check_embedded, check_scratch, check_shares, usable_cores
from flowkit.cluster.extensions import memory_manager, serializers, with_policies
from flowkit.cluster.lasting_cluster import LastingCluster, LastingNanny
from flowkit.cluster.machine import DIRECTORY_VARIABLE
from flowkit.cluster.quiet_logs import quieten, restore
from flowkit.cluster.wire import EMBEDDED_VARIABLE, SHUTDOWN_TOPIC
from flowkit.config import Config
from flowkit.errors import StartupError
from flowkit.logs import logger_of
from flowkit.model.checks import check_int

logger = logger_of("flowkit.cluster")

START_LIMIT_S = 30.0
CLOSE_LIMIT_S = 10.0
_IN_CHILD = """\
This process was started by multiprocessing and imports the script that started it, which makes a Context as soon as it is imported: so every \
process would start a cluster of its own. Put what the script does under a guard:

    if __name__ == "__main__":
        main()"""

_IS_DAEMONIC = """\
This process is a daemonic one, as those of multiprocessing.Pool are, and Python lets it start no processes. Give the Context processes=False, or \
the address of a cluster; or have the process started by concurrent.futures.ProcessPoolExecutor or Process(daemon=False)."""

_SETTINGS = {
    # Only what differs from what Dask would do and concerns this cluster alone.
    "distributed.worker.daemon": False,  # else tasks could start no processes; whoever ends a worker ends these (``LastingNanny``)
    "distributed.scheduler.worker-ttl": None,  # flowkit hears silence much earlier by itself
    "distributed.admin.low-level-log-length": 0,
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": START_LIMIT_S,
    # Dask gives all its workers one seed; equal hashes by that luck would be gone on the first real cluster.
    "distributed.nanny.pre-spawn-environ.PYTHONHASHSEED": "random",
    f"distributed.nanny.pre-spawn-environ.{EMBEDDED_VARIABLE}": "1",
}


class EmbeddedCluster:
    """A cluster that lives as long as this object; a context manager.

    Parameters
    ----------
    workers
        Processes, 1 or more; None: one per usable core (with ``processes=False`` always one, with that many threads).
    threads_per_worker
        Tasks at once in each.
    processes
        False: one executor with threads in this process. Quick to start and easy to debug; Python code does not run in parallel.
    memory_limit
        Bytes, or as Dask writes it (``"2GiB"``), for each worker; None: an equal share of the machine's. With less than some 150 MB
        a worker has nothing left for tasks.
    local_directory
        Where Dask's workers keep their files; None: the system's temporary directory.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        threads_per_worker: int = 1,
        processes: bool = True,
        memory_limit: int | str | None = None,
        local_directory: str | None = None,
        config: Config | None = None,
    ) -> None:
        self.config = config or Config()
        check_embedded(workers, threads_per_worker, processes, memory_limit, self.config)
        _refuse_in_child(processes)
        # What nobody offers here nobody will offer in the workers; the scheduler runs in this very process.
        with_policies(self.config)
        memory_manager(self.config.memory_manager)
        serializers(self.config.serializers)
        cores = usable_cores()
        if not processes:
            workers, threads_per_worker = 1, (workers or cores) * threads_per_worker
        self._workers: int = workers or cores
        if processes:
            check_shares(self._workers, memory_limit, MEMORY_LIMIT, self.config)
            check_scratch(local_directory or dask.config.get("temporary-directory", None))
        self.threads_per_worker = threads_per_worker
        self.processes = processes
        self._memory_limit = "auto" if memory_limit is None else memory_limit
        self._local_directory = local_directory
        self._cluster: LastingCluster | None = None
        self._closing = threading.Lock()

    def __repr__(self) -> str:
        state = "not started" if self._cluster is None else self._cluster.scheduler_address
        return f"<EmbeddedCluster {self.workers} x {self.threads_per_worker}: {state}>"

    @property
    def workers(self) -> int:
        """How many there are meant to be now."""
        return self._workers if self._cluster is None else len(self._cluster.worker_spec)

    @property
    def cluster(self) -> LastingCluster:
        """The Dask cluster. Raises ``StartupError`` when it is not running."""
        if self._cluster is None:
            raise StartupError("the embedded cluster is not running")
        return self._cluster

    def start(self) -> EmbeddedCluster:
        """Start the workers; returns when they are there.

        Raises
        ------
        errors.StartupError
            They did not come up.
        """
        options: dict[str, Any] = {
            "n_workers": self._workers,
            "threads_per_worker": self.threads_per_worker,
            "processes": self.processes,
            "memory_limit": self._memory_limit,
            "local_directory": self._local_directory,
            # A port of its own for Dask's web server: the usual one may belong to another cluster. No dashboard: it takes
            # half a second to import.
            "scheduler_kwargs": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            "silence_logs": logging.ERROR,
            "asynchronous": False,
            "worker_dashboard_address": None,
        }
        if self.processes:
            options["worker_class"] = LastingNanny
        if self.processes and self.config.local_directory:
            options["env"] = {DIRECTORY_VARIABLE: self.config.local_directory}
        quieten()
        with dask.config.set(_SETTINGS):
            try:
                self._cluster = LastingCluster(**options)
            except BaseException as error:
                restore()
                if not isinstance(error, Exception):
                    raise
                raise StartupError(f"the embedded cluster did not come up: {type(error).__name__}: {error}") from error
        return self

    def scale(self, workers: int) -> None:
        """Have so many workers; returns at once.

        Raises
        ------
        errors.InvalidArgument
            It is below 1, or more than the machine has memory for.
        """
        check_int("workers", workers, least=1)
        # What each may take at most is settled by now: no shares.
        check_shares(workers, MEMORY_LIMIT, MEMORY_LIMIT, self.config)
        self.cluster.scale(workers)

    def close(self) -> None:
        """End the workers and the scheduler. Idempotent; leaves no process."""
        with self._closing:
            self._workers = self.workers
            cluster, self._cluster = self._cluster, None
        if cluster is None:
            return
        try:
            dask_internals.prepare_shutdown(cluster, SHUTDOWN_TOPIC)
            cluster.close(timeout=CLOSE_LIMIT_S)
        except TimeoutError:
            logger.warning("workers of %s did not close within %g s; they are killed", self, CLOSE_LIMIT_S)
            dask_internals.kill_processes(cluster)
        except Exception:
            restore()
            raise
        # Not when Ctrl-C interrupts it: then Dask ends the rest with the process, and would tell of each part.
        restore()

    def __enter__(self) -> EmbeddedCluster:
        return self if self._cluster is not None else self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _refuse_in_child(processes: bool) -> None:
    """A process of the user's own that is still importing its parent's script: whatever it starts now would never end. Or one that may start none."""
    this = multiprocessing.current_process()
    if getattr(this, "_inheriting", False):
        raise StartupError(_IN_CHILD)
    if processes and this.daemon:
        raise StartupError(_IS_DAEMONIC)
