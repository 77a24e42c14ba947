"""What a driver needs for TLS is checked at the call, before a connection: nothing here opens one."""

from __future__ import annotations

from pathlib import Path

import dask
import pytest

from flowkit.cluster.encryption import check_security, explain
from flowkit.errors import ConfigError
from tests.certificates import Authority

ADDRESS = "tls://127.0.0.1:8786"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "ours")


@pytest.mark.parametrize("left_out", ["ca-file", "client.cert"])
def test_no_certificate_for_an_encrypted_address_names_the_setting_and_the_other_way(ours: Authority, left_out: str):
    name = f"distributed.comm.tls.{left_out}"
    with dask.config.set({**ours.settings(), name: None}), pytest.raises(ConfigError, match="no certificate to show") as caught:
        check_security(ADDRESS)
    assert name in str(caught.value)
    assert "Client(address, security=" in str(caught.value)
    assert caught.value.setting == name


@pytest.mark.parametrize("name", ["ca-file", "client.cert", "client.key"])
def test_a_file_that_is_not_there_is_named_with_its_setting(ours: Authority, name: str):
    full = f"distributed.comm.tls.{name}"
    with (
        dask.config.set({**ours.settings(), full: "/nowhere/file.pem"}),
        pytest.raises(ConfigError, match="No such file") as caught,
    ):
        check_security(ADDRESS)
    assert f"{full} = '/nowhere/file.pem'" in str(caught.value)


def test_a_key_of_another_certificate_is_told_with_both_files(ours: Authority):
    with (
        dask.config.set({**ours.settings(), "distributed.comm.tls.client.key": ours.key("node")}),
        pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH") as caught,
    ):
        check_security(ADDRESS)
    assert ours.cert("driver") in str(caught.value)
    assert ours.key("node") in str(caught.value)


def test_a_key_that_stands_in_the_setting_is_not_told(ours: Authority):
    text = Path(ours.key("node")).read_text()
    with (
        dask.config.set({**ours.settings(), "distributed.comm.tls.client.key": text}),
        pytest.raises(ConfigError, match="<given as text>") as caught,
    ):
        check_security(ADDRESS)
    assert text.splitlines()[1] not in str(caught.value)


def test_a_plain_address_is_refused_where_encryption_is_required():
    with dask.config.set({"distributed.comm.require-encryption": True}), pytest.raises(ConfigError, match="require-encryption"):
        check_security("tcp://127.0.0.1:8786")
    check_security("tcp://127.0.0.1:8786")


def test_what_fits_is_not_refused(ours: Authority):
    with dask.config.set(ours.settings()):
        check_security(ADDRESS)
    with dask.config.set({name: Path(path).read_text() for name, path in ours.settings().items()}):
        check_security(ADDRESS)


def test_a_refusal_that_has_nothing_to_do_with_encryption_is_not_explained_by_it():
    assert explain("tcp://127.0.0.1:1", OSError("Timed out trying to connect")) == ""
    assert "tls://127.0.0.1:1" in explain("tcp://127.0.0.1:1", OSError("in <TCP (closed)>: Connection reset by peer"))
