"""What a driver needs to reach a scheduler that speaks TLS, checked before anything is connected.

Runs in the driver. Dask finds a missing certificate inside of its client's start, and that client then never ends.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import dask
from distributed.security import Security

from flowkit.errors import ConfigError

_SETTINGS = "distributed.comm.tls"
_ADVICE = (
    "or hand in a client: Context(Client(address, security=Security(tls_ca_file=..., tls_client_cert=..., tls_client_key=...)))"
)
_NAMES = ("ca-file", "client.cert", "client.key")


def check_security(address: str) -> None:
    """Refuse an address that Dask's settings do not suit.

    Raises
    ------
    errors.ConfigError
        It begins with ``tls://`` and a certificate is missing, cannot be read, or is not of its key; or it does not, and encryption is required.
    """
    encrypted = address.startswith("tls://")
    if not encrypted:
        if address.startswith("tcp://") and dask.config.get("distributed.comm.require-encryption", None):
            setting = "distributed.comm.require-encryption"
            raise ConfigError(
                f"{address!r} is not encrypted, and Dask's setting {setting} asks for that: "
                f"begin the address with tls:// or unset it",
                setting=setting,
                value=True,
            )
        return
    values = {f"{_SETTINGS}.{name}": dask.config.get(f"{_SETTINGS}.{name}", None) for name in _NAMES}
    # A key may stand in the certificate's file.
    if missing := [name for name in list(values)[:2] if not values[name]]:
        raise ConfigError(
            f"{address!r} speaks TLS, and this driver has no certificate to show: set {' and '.join(missing)} in Dask's configuration, {_ADVICE}",
            setting=missing[0],
            value=None,
        )
    for name, value in values.items():
        if value and "\n" not in str(value):
            _check_readable(name, str(value))
    try:
        Security().get_connection_args("client")
    except (OSError, ValueError) as error:
        shown = ", ".join(f"{name} = {_shown(value)}" for name, value in values.items())
        reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
        raise ConfigError(
            f"{address!r} speaks TLS, and this driver's certificate cannot be used: {reason}; {shown}",
            setting=_SETTINGS,
            value=shown,
        ) from error


def explain(address: str, error: BaseException) -> str:
    """Why nobody answered at an address, as far as encryption may be the reason; empty when it is none."""
    text = f"{error} {error.__cause__ or ''}"
    if address.startswith("tls://"):
        if "does not match" in text or "CERTIFICATE_VERIFY_FAILED" in text:
            ca = dask.config.get(f"{_SETTINGS}.ca-file", None)
            return f"; the scheduler's certificate is none of the authority in {_SETTINGS}.ca-file = {_shown(ca)}"
        if "SSL" in text or "closed" in text:
            cert = dask.config.get(f"{_SETTINGS}.client.cert", None)
            return (
                f"; it ended the TLS greeting: it does not take the certificate in {_SETTINGS}.client.cert = {_shown(cert)}, "
                f"or speaks no TLS, and its address begins with tcp://"
            )
    elif address.startswith("tcp://") and ("closed" in text or "reset" in text):
        return f"; if it speaks TLS only, its address is {'tls://' + address.removeprefix('tcp://')!r}"
    return ""


def _check_readable(name: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{name} = {path!r}: {os.strerror(error.errno or 0)}", setting=name, value=path) from error


def _shown(value: object) -> str:
    """A path as it is; a certificate or key that stands in the setting itself is not told."""
    return "<given as text>" if "\n" in str(value) else repr(value)
