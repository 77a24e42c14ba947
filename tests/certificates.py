"""Certificates for tests: an authority of its own in each directory, and what it signed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security


class Authority:
    """A certificate authority that signs one certificate for the cluster's processes and one for its drivers."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(f"authority {directory.name}")
        self.ca = self._save("ca.pem", self._certificate(self._name, self._key, ca=True))
        for who in ("node", "driver"):
            key = ec.generate_private_key(ec.SECP256R1())
            self._save(f"{who}.pem", self._certificate(_named(who), key, ca=False))
            self._save(f"{who}.key", key)

    def cert(self, who: str) -> str:
        return str(self.directory / f"{who}.pem")

    def key(self, who: str) -> str:
        return str(self.directory / f"{who}.key")

    def options(self, who: str = "node") -> list[str]:
        """For the command lines of Dask's scheduler and worker."""
        return ["--tls-ca-file", self.ca, "--tls-cert", self.cert(who), "--tls-key", self.key(who)]

    def settings(self, who: str = "driver") -> dict[str, str]:
        """For ``dask.config.set``, as a driver has them."""
        names = {"ca-file": self.ca, "client.cert": self.cert(who), "client.key": self.key(who)}
        return {f"distributed.comm.tls.{name}": value for name, value in names.items()}

    def security(self, who: str = "driver") -> Security:
        """For a ``Client``, and for a scheduler and workers of this process."""
        own = {f"tls_{role}_{part}": f(who) for role in ("client", "scheduler", "worker") for part, f in self._parts}
        return Security(tls_ca_file=self.ca, require_encryption=True, **own)

    @property
    def _parts(self):
        return (("cert", self.cert), ("key", self.key))

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _save(self, name: str, made: x509.Certificate | ec.EllipticCurvePrivateKey) -> str:
        path = self.directory / name
        if isinstance(made, x509.Certificate):
            path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        else:
            pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
            path.write_bytes(made.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
            path.chmod(0o600)
        return str(path)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
