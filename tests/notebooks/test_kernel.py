"""What a front end hears of jobs in cells: in time, under the right cell, not too often, and static in the end."""

from __future__ import annotations

import re
import threading
import time

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from flowkit.notebook.faces import WIDGET_VIEW
from tests.notebooks.conftest import Kernel

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def displays(messages):
    return [message for message in messages if message["msg_type"] in {"display_data", "update_display_data"}]


def test_a_job_of_a_moment_leaves_one_line_and_no_widget(kernel):
    messages = kernel.run("fc.range(8, num_partitions=4).count()")
    (number,) = [each["content"]["execution_count"] for each in messages if each["msg_type"] == "execute_input"]
    place, line = displays(messages)
    assert place["content"]["data"] == {"text/plain": ""}
    assert line["content"]["transient"] == place["content"]["transient"]
    assert line["content"]["data"]["text/plain"].startswith(f"✔ count at In[{number}] line 1 · done · 4/4 tasks")
    assert not [message for message in messages if message["msg_type"] == "comm_open"]


@pytest.mark.parametrize(
    "code, last",
    [
        ("print('before')\nfc.range(8).count()\nprint('after')\n5", "execute_result"),
        ("print('before')\nfc.range(8).map(lambda x: 1 / x).collect()", "error"),
        ("print('before')\nfc.range(9).map(lambda x: time.sleep(.1)).map(lambda x: 1 / (x or 0)).collect()", "error"),
    ],
    ids=["a short job", "a short job that fails", "a long job that fails"],
)
def test_a_panel_stands_where_its_job_was_started(kernel, code, last):
    messages = kernel.hear_until_idle(kernel.begin(code))
    shown = [each for each in messages if each["msg_type"] in {"stream", "display_data", "execute_result", "error"}]
    kinds = [each["msg_type"] for each in shown]
    assert shown[0]["content"]["text"] == "before\n"
    assert kinds[:2] == ["stream", "display_data"]
    assert kinds[-1] == last
    assert kinds.count("display_data") == 1


def test_a_longer_one_shows_a_widget_while_the_cell_blocks_and_is_static_after(kernel):
    request = kernel.begin("fc.range(20, num_partitions=20).map(lambda x: time.sleep(.1)).count()")
    messages = kernel.hear_until_idle(request)
    first, widget, *later = displays(messages)
    assert first["msg_type"] == "display_data"
    assert WIDGET_VIEW in widget["content"]["data"]
    assert all(message["parent_header"]["msg_id"] == request for message in displays(messages))
    last = later[-1]["content"]
    assert set(last["data"]) == {"text/html", "text/plain"}
    assert "20/20 tasks" in last["data"]["text/plain"]
    assert last["transient"] == first["content"]["transient"]
    updates = [message for message in messages if message["msg_type"] == "comm_msg"]
    assert len(updates) > 3
    seconds = updates[-1]["heard_at"] - updates[0]["heard_at"]
    assert len(updates) <= 10 * seconds + 3, f"{len(updates)} messages in {seconds:.1f} s"
    result = next(message for message in messages if message["msg_type"] == "execute_result")
    assert messages.index(later[-1]) < len(messages) - 1
    assert result["content"]["data"]["text/plain"] == "20"


def test_a_loop_of_small_jobs_is_one_panel(kernel):
    messages = kernel.run("for _ in range(30): fc.range(4).map(lambda x: time.sleep(.01)).count()")
    assert len([message for message in displays(messages) if message["msg_type"] == "display_data"]) == 1
    assert "30 jobs · done" in displays(messages)[-1]["content"]["data"]["text/plain"]


def test_an_interrupt_cancels_the_jobs_of_the_cell_and_says_so(kernel):
    request = kernel.begin("f = fc.range(4, num_partitions=4).map(lambda x: time.sleep(30)).count_async()\nf.result()")
    while True:
        message = kernel.client.get_iopub_msg(timeout=30)
        if message["msg_type"] == "update_display_data":
            break
    kernel.manager.interrupt_kernel()
    messages = kernel.hear_until_idle(request, timeout_s=20)
    assert [message["content"]["ename"] for message in messages if message["msg_type"] == "error"] == ["KeyboardInterrupt"]
    assert "True" in kernel.text("import concurrent.futures as cf\nbool(cf.wait([f], 10).done)")
    assert kernel.text("fc.range(4).count()").endswith("4")


def test_an_error_shows_the_users_cell_and_no_frame_of_ours(kernel):
    told = re.sub(r"\x1b\[[0-9;]*m", "", kernel.text("fc.range(4).map(lambda x: 1 / (x - 2)).collect()"))
    assert "ZeroDivisionError" in told
    assert "for the element 2" in told
    assert "flowkit/context.py" not in told
    assert "flowkit/jobs.py" not in told


def test_good_errors_of_ours_show_the_message_and_the_users_line_alone(kernel):
    told = re.sub(r"\x1b\[[0-9;]*m", "", kernel.text("fc.range(3).reduce_by_key(max).collect()"))
    assert re.search(r"needs \(key, value\) pairs, but got [01] \(int\)", told)
    assert "fc.range(3).reduce_by_key(max).collect()" in told
    assert "flowkit/" not in told
    assert "RemoteTraceback" not in told


def test_an_interrupted_action_shows_the_users_cell_and_no_frame_of_ours(kernel):
    request = kernel.begin("fc.range(4, num_partitions=4).map(lambda x: [time.sleep(.01) for _ in range(3000)]).count()")
    while kernel.client.get_iopub_msg(timeout=30)["msg_type"] != "display_data":
        pass
    kernel.manager.interrupt_kernel()
    (error,) = [each["content"] for each in kernel.hear_until_idle(request, timeout_s=20) if each["msg_type"] == "error"]
    told = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))
    assert error["ename"] == "KeyboardInterrupt"
    assert "fc.range(4, num_partitions=4)" in told
    assert "flowkit/" not in told
    assert "threading.py" not in told


def test_errors_that_have_nothing_to_do_with_us_are_shown_as_ever(kernel):
    told = re.sub(r"\x1b\[[0-9;]*m", "", kernel.text("def f():\n    raise KeyError('mine')\nf()"))
    assert "KeyError" in told
    assert "raise KeyError('mine')" in told


def test_commands_answer_in_one_line_or_a_table(kernel):
    assert "executor" in kernel.text("%flowkit status")
    kernel.text("fc.range(3).count()")
    assert "count at In[" in kernel.text("%flowkit jobs -n 2")
    assert "no command 'nonsense'" in kernel.text("%flowkit nonsense")
    assert "did you mean status?" in kernel.text("%flowkit stauts")
    assert "there is no variable nothing" in kernel.text("%flowkit explain nothing")
    assert "%flowkit jobs --help" in kernel.text("%flowkit jobs -x")
    assert "how many, the newest" in kernel.text("%flowkit jobs --help")
    assert "range at" in kernel.text("numbers = fc.range(3)\n%flowkit lineage numbers")
    assert kernel.text("%flowkit conf max_task_failures").strip() == "4"


def test_a_failed_partition_is_replayed_and_its_element_handed_out(kernel):
    kernel.text("fc.parallelize(['1', '2', 'three'], 3).map(lambda text: int(text)).sum()")
    assert "failed again at 'three': ValueError" in kernel.text("%flowkit replay --no-debug")
    kernel.run("%flowkit replay --element bad")
    assert kernel.text("bad") == "'three'"
    assert "division by zero" in kernel.text("1 / 0")
    assert "failed again at 'three'" in kernel.text("%flowkit replay --no-debug")
    kernel.run("try:\n    fc.parallelize(['4', 'five'], 2).map(lambda text: int(text)).sum()\nexcept ValueError:\n    pass")
    assert "failed again at 'five': ValueError" in kernel.text("%flowkit replay --no-debug")


def test_a_cell_magic_groups_the_jobs_of_its_cell(kernel):
    messages = kernel.run("%%flowkit --group nightly --name counts -o did --time\nfc.range(3).count()\nfc.range(4).count()")
    (told,) = [message["content"]["text"] for message in messages if message["msg_type"] == "stream"]
    assert re.fullmatch(r"the cell took \d.* and ran 2 jobs\n", told)
    assert "nightly: counts: 2 jobs" in displays(messages)[-1]["content"]["data"]["text/plain"]
    assert "2 jobs" in kernel.text("did")
    assert re.search(r"counts +nightly +succeeded", kernel.text("%flowkit jobs -n 1"))


def test_the_body_of_a_magics_cell_is_named_by_its_cell(kernel):
    messages = kernel.run("%%flowkit --group lines\n\nfc.range(3).count()")
    (number,) = [each["content"]["execution_count"] for each in messages if each["msg_type"] == "execute_input"]
    assert f"count at In[{number}] line 3" in displays(messages)[-1]["content"]["data"]["text/plain"]
    messages = kernel.run("fc.range(3).sum()")
    (number,) = [each["content"]["execution_count"] for each in messages if each["msg_type"] == "execute_input"]
    assert f"sum at In[{number}] line 1" in displays(messages)[-1]["content"]["data"]["text/plain"]


def test_progress_can_be_switched_off(kernel):
    assert not displays(kernel.run("%%flowkit --quiet\nfc.range(4).count()"))
    messages = kernel.run(
        "quiet = fk.Context(workers=1, processes=False, progress='off')\nquiet.range(2).map(lambda x: time.sleep(.3)).count()"
    )
    assert not displays(messages)
    kernel.run("quiet.close()")
    messages = kernel.run("%unload_ext flowkit\nfc.range(4).count()")
    assert not displays(messages)
    assert displays(kernel.run("%load_ext flowkit\nfc.range(4).count()"))


def completed(kernel, code):
    reply = kernel.client.complete(code, len(code), reply=True, timeout=30)["content"]
    kinds = [each["type"] for each in reply["metadata"]["_jupyter_types_experimental"]]
    return list(zip(reply["matches"], kinds, strict=True))


def test_completion_offers_what_a_command_takes_and_no_words_of_python(kernel):
    kernel.run("numbers = fc.range(3)\nother = 5")
    assert completed(kernel, "%flowkit explain num") == [("numbers", "rdd")]
    found = completed(kernel, "x = 1\n%flowkit explain ")
    assert ("numbers", "rdd") in found
    assert {kind for _, kind in found} == {"rdd", "option"}
    assert [kind for _, kind in found].index("option") == sum(kind == "rdd" for _, kind in found)
    assert completed(kernel, "%flowkit start --w") == [("--workers", "option")]
    assert ("numbers", "rdd") not in completed(kernel, "print(othe")


def test_scale_says_how_many_there_are_and_the_next_command_agrees(kernel):
    assert kernel.text("%flowkit scale 3").strip() == "3 executors with 3 task slots"
    assert "3 executors with 3 task slots" in kernel.text("%flowkit executors")
    assert kernel.text("%flowkit scale 2").strip() == "2 executors with 2 task slots"
    assert re.search(r"2 executors with 2 task slots; \d left or went", kernel.text("%flowkit executors"))


def test_a_log_that_goes_on_ends_with_the_last_job_or_when_it_is_interrupted(kernel):
    assert kernel.text("%flowkit log --tail -n 2").endswith("no job runs\n")
    kernel.run("gate = fc.range(2).map(lambda x: [time.sleep(.02) for _ in range(2_000)]).count_async()")
    request = kernel.begin("%flowkit log --tail -n 1")
    while "interrupted" not in str((message := kernel.client.get_iopub_msg(timeout=30))["content"]):
        pass
    kernel.manager.interrupt_kernel()
    messages = [message, *kernel.hear_until_idle(request, timeout_s=20)]
    assert not [message for message in messages if message["msg_type"] == "error"]
    assert "interrupted; jobs go on" in str([message["content"] for message in messages])
    assert kernel.text("%flowkit cancel --all").strip().endswith("cancelled")


SHOWN = "def workers():\n    return [each.pid for each in psutil.Process().children(True) if 'spawn_main' in ' '.join(each.cmdline())]"


def test_a_cell_that_makes_a_context_brings_its_panel_and_run_again_closes_the_one_before(bare_kernel):
    cell = "fc = fk.Context(workers=1)\nnumbers = fc.range(4, num_partitions=4)\nnumbers.map(lambda x: x).count()"
    bare_kernel.run(f"import flowkit as fk, psutil\n{SHOWN}")
    first = bare_kernel.run(cell)
    assert "4/4 tasks" in str([message["content"]["data"] for message in displays(first)]), "no panel without %load_ext"
    assert "1 executor on this machine" in bare_kernel.text("fc")
    # The name is another's now, though the output of a cell refers to the Context.
    told = bare_kernel.text("fc = fk.Context(workers=1)")
    assert told.strip() == "the Context that was fc before (1 executor) is closed; RDDs made with it have to be made again"
    assert bare_kernel.text("len(workers())") == "1"
    assert "is closed; make its RDDs again" in bare_kernel.text("numbers.count()")
    told = bare_kernel.text("second = fk.Context(workers=1)")
    assert "2 Contexts with processes of their own are open: fc (1 executor" in told
    assert "2 open Contexts" in bare_kernel.text("%flowkit contexts")
    assert bare_kernel.text("second = None\nimport gc; gc.collect()\nlen(fk.Context.live())").endswith("1")
    assert bare_kernel.text("%flowkit stop").strip() == "fc is closed, and its processes have ended"
    assert "fc is a new Context on this machine, 1 process" in bare_kernel.text("%flowkit restart")
    assert "3" in bare_kernel.text("print(fc.range(3).count())").splitlines()
    bare_kernel.run("fc.close()")


def test_a_kernel_that_is_asked_to_end_closes_its_context_and_ends_at_once_and_quietly(tmp_path):
    with (tmp_path / "output").open("w+") as output:
        manager, client = start_new_kernel(stdout=output, stderr=output)
        try:
            kernel = Kernel(manager, client)
            kernel.run("import flowkit as fk\nfc = fk.Context(workers=1)\nfc.range(3).map(str).cache().count()")
            (pid,) = eval(kernel.text("import os\nfc.range(1).map(lambda x: os.getpid()).collect()"))
            client.shutdown()
            deadline = time.monotonic() + 20.0  # left alone it would try to end its children for 29 s
            while manager.is_alive() and time.monotonic() < deadline:
                threading.Event().wait(0.05)
            assert not manager.is_alive()
            assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
        output.seek(0)
        told = [line for line in output.read().split("\n") if line and "without encryption" not in line]
    assert told == []
