"""Brings flowkit into a Dask cluster from a driver, once per protocol version, and says what is missing where.

Runs in the driver, on any thread but the client's loop.
"""

from __future__ import annotations

import pickle
from typing import Any

from flowkit.cluster.elsewhere import SchedulerPluginElsewhere, pickled_elsewhere
from flowkit.cluster.problems import how_to_install
from flowkit.cluster.settled import settled
from flowkit.cluster.wire import PLUGIN_NAME, PROTOCOL, own_versions
from flowkit.config import Config, settings_of
from flowkit.errors import ClusterError, ConfigError, FlowkitError, VersionMismatch
from flowkit.lineage import pickling
from flowkit.scheduling.policies.built_in import BUILT_IN


def install(client: Any, config: Config) -> None:
    """Register the scheduler plugin unless it is there; it installs the workers' part itself.

    Raises
    ------
    errors.ClusterError
        flowkit, or something it needs, is not installed where the scheduler runs.
    errors.VersionMismatch
        Another version of it is.
    """
    said = settled(config)
    # Stores travel in programs that use them, and are nobody else's business.
    config = config.with_settings(object_stores={})
    # Who gets the next slot is the scheduler's business: workers need not have what policies are made of.
    own = Config()
    of_workers = config.with_settings(pools={}, **{policy: getattr(own, policy) for policy in BUILT_IN})
    worker_plugin = pickled_elsewhere("flowkit.cluster.worker_plugin:FlowkitWorkerPlugin", PROTOCOL, of_workers)
    nanny_plugin = pickled_elsewhere("flowkit.cluster.nanny_plugin:FlowkitNannyPlugin", config.local_directory)
    plugin = SchedulerPluginElsewhere(
        PLUGIN_NAME,
        "flowkit.cluster.scheduler_plugin:FlowkitSchedulerPlugin",
        PROTOCOL,
        # What runs in executors is not unpickled in the scheduler.
        config.with_settings(memory_manager="unified", serializers={}, resources={}),
        worker_plugin,
        nanny_plugin,
        said,
    )
    address = client.scheduler.address
    try:
        client.register_plugin(plugin, name=PLUGIN_NAME)
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"the scheduler at {address} has no module {error.name!r}; {how_to_install()}", address=address, module=error.name
        ) from error
    except FlowkitError:
        raise
    except (AttributeError, ImportError, TypeError) as error:
        mine = own_versions()
        raise VersionMismatch(
            f"the scheduler at {address} has a flowkit that does not fit the driver's {mine.flowkit} ({error}); install the same on both",
            here=mine.flowkit,
            address=address,
        ) from error


def check_travels(config: Config) -> None:
    """See that the objects of a configuration that run elsewhere can be pickled; object stores travel with programs that use them.

    Raises
    ------
    errors.ConfigError
        One of them cannot.

    Examples
    --------
    >>> import threading
    >>> check_travels(Config(resources={"gpu": threading.Lock().acquire}))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    flowkit.errors.ConfigError: resources['gpu'] = <built-in method acquire of _thread.lock object at ...> cannot be pickled: ...
    """
    for setting in settings_of(config):
        value = getattr(config, setting.name)
        if setting.name == "object_stores" or not (setting.metadata["method"] or setting.metadata["mapping"]):
            continue
        if setting.metadata["mapping"]:
            for name, each in value.items():
                _check_pickles(f"{setting.name}[{name!r}]", setting.name, each)
        else:
            _check_pickles(setting.name, setting.name, value)


def _check_pickles(place: str, setting: str, value: Any) -> None:
    if isinstance(value, str | int | float):
        return
    try:
        pickling.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise ConfigError(f"{place} = {value!r} cannot be pickled: {error}", setting=setting, value=repr(value)) from error
