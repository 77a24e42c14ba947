"""Named resources of a worker: counted where they count something, refused where they make no sense."""

from __future__ import annotations

import logging
import subprocess

import pytest

from flowkit.cluster.discovery import discovered
from flowkit.config import Config
from flowkit.errors import ConfigError, InvalidArgument
from flowkit.model.resources import resource_profile


def test_amounts_of_dasks_that_count_nothing_make_no_addresses_and_are_told_once(caplog):
    with caplog.at_level(logging.INFO, "flowkit.cluster"):
        found = discovered({}, {"MEMORY": 70e9, "GPU": 0.5, "FPGA": 2.0, "LICENCE": 10_000.0}, {})
    assert set(found) == {"fpga", "licence"}
    assert found["fpga"] == ("0", "1")
    (told,) = [record.getMessage() for record in caplog.records]
    assert "MEMORY=7e+10, GPU=0.5" in told


@pytest.mark.parametrize(
    "told",
    [-1, 1.5, None, True, "", " ", "2", b"gpu", ["0", "0"], [0, "0"], ["0", ""], [None], [["0"]], {"0": 1}, 10**9, range(10_001)],
)
def test_what_can_be_seen_to_be_no_resource_is_refused_where_it_is_said(told):
    with pytest.raises(ConfigError, match=r"resources\['gpu'\] = "):
        Config(resources={"gpu": told})


@pytest.mark.parametrize("told", [0, 10_000, ["0", "1"], ("a",), [0, 1], [], range(4), list, "./gpus.sh", lambda: ["0"]])
def test_what_may_be_a_resource_is_accepted(told):
    assert Config(resources={"gpu": told}).resources == {"gpu": told}


def test_a_function_that_finds_more_than_can_be_counted_is_refused():
    with pytest.raises(ConfigError, match="neither a whole number up to 10,000 nor a list"):
        discovered({"gpu": lambda: 10**9}, {}, {})


def test_names_of_resources_are_the_same_wherever_they_are_said(monkeypatch):
    printed = subprocess.CompletedProcess([], 0, '{"name": "GPU2", "addresses": ["a"]}', "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: printed)
    setting = Config(resources={"GPU2": "./gpus"}).resources
    assert discovered(setting, {"GPU": 1.0}, {}) == {"gpu": ("0",), "gpu2": ("a",)}
    assert resource_profile(1, {"GPU2": 1}) == resource_profile(1, {"gpu2": 1})


def test_names_that_differ_by_case_alone_are_refused():
    with pytest.raises(ConfigError, match="differ by case alone"):
        Config(resources={"GPU": 1, "gpu": 2})
    with pytest.raises(InvalidArgument, match="named twice"):
        resource_profile(1, {"GPU": 1, "gpu": 2})
