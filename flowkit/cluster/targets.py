"""Which Dask client a session runs over: one that is handed in, or one of its own. Runs in the driver."""

from __future__ import annotations

import contextlib

from distributed import Client
from distributed.deploy.cluster import Cluster

from flowkit import errors
from flowkit.cluster.encryption import check_security, explain

_CLOSE_LIMIT_S = 5.0


def client_of(target: str | Client | Cluster, timeout_s: float | None = None) -> tuple[Client, bool]:
    """The client of a cluster at an address, of a client, or given as an object; and whether it was made here, to be closed here.

    Raises
    ------
    errors.InvalidArgument
        It is an asynchronous or a closed client, an address that is none, or none of these.
    errors.ConfigError
        Dask's settings of encryption do not suit the address.
    errors.ClusterError
        Nobody answers within ``timeout_s``; None: as Dask has it.
    """
    if isinstance(target, Client):
        if target.asynchronous:
            raise errors.InvalidArgument(
                "the client is asynchronous; hand in a synchronous one (Client(..., asynchronous=False)), the cluster, or its address",
                name="client",
                value=repr(target),
                allowed="a synchronous Client",
            )
        if target.status == "closed":
            raise errors.InvalidArgument(
                "the Dask client was closed; hand in another one, or the cluster's address",
                name="client",
                value=repr(target),
                allowed="an open Client",
            )
        return target, False
    if not isinstance(target, str | Cluster):
        raise errors.InvalidArgument(
            f"{target!r}: must be an address such as 'tcp://host:8786', a distributed.Client, or a Dask cluster object",
            name="target",
            value=repr(target),
            allowed="str, Client or Cluster",
        )
    if isinstance(target, str):
        check_security(target)
    client = Client.__new__(Client)
    try:
        client.__init__(target, asynchronous=False, set_as_default=False, **({} if timeout_s is None else {"timeout": timeout_s}))
    except BaseException as error:
        # After an OSError Dask closes it; after anything else the client would wait for ever in its ``__del__``, on whichever thread.
        with contextlib.suppress(Exception):
            client.close(timeout=_CLOSE_LIMIT_S)
        if not isinstance(error, Exception):
            raise
        if isinstance(error, ValueError) and isinstance(target, str):
            allowed = "an address such as 'tcp://host:8786'"
            raise errors.InvalidArgument(
                f"{target!r}: {error}; write {allowed}", name="target", value=target, allowed=allowed
            ) from error
        why = explain(target, error) if isinstance(target, str) else ""
        raise errors.ClusterError(f"no Dask scheduler answers at {target!r}: {error}{why}", address=str(target)) from error
    return client, True
