"""What is no cluster is an error at the call, and leaves nothing that keeps the process from ending."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

_SCRIPT = """
import gc, json, sys
import flowkit as fk

found = {}
for target in json.loads(sys.argv[1]):
    try:
        fk.Context(target, progress="off")
    except Exception as error:
        found[target] = [type(error).__name__, str(error)]
gc.collect()
print(json.dumps(found))
"""


def test_addresses_that_are_none_are_refused_and_the_process_ends():
    targets = ["foo://127.0.0.1:1", "tcp://127.0.0.1", "127.0.0.1", ""]
    ran = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(targets)],
        capture_output=True,
        text=True,
        timeout=150,  # a client of Dask's that did not start waits for ever at the end of its process
        check=True,
    )
    assert ran.stderr == ""
    found = json.loads(ran.stdout)
    assert {found[target][0] for target in targets} == {"InvalidArgument"}
    assert "unknown address scheme 'foo'" in found["foo://127.0.0.1:1"][1]
    assert all("missing port number" in found[target][1] and "tcp://host:8786" in found[target][1] for target in targets[1:])
