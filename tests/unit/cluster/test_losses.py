import pytest

from flowkit.cluster.losses import LossFacts, diagnose


def test_a_worker_its_nanny_ended_for_memory_is_said_so_and_blamed_on_what_ran():
    facts = LossFacts(
        "tcp://w:1",
        pid=5,
        killed_for_memory_bytes=480 << 20,
        memory_limit_bytes=500 << 20,
        exit_code=-15,
        ran=["stage 1 partition 2"],
    )
    loss = diagnose(facts)
    assert loss.task_caused
    assert "killed for memory by its nanny at 480 MiB of 500 MiB" in loss.reason
    assert "stage 1 partition 2" in loss.reason


def test_a_kill_near_the_memory_limit_is_taken_for_the_kernels():
    near = diagnose(LossFacts("tcp://w:1", exit_code=-9, last_memory_bytes=95, memory_limit_bytes=100))
    far = diagnose(LossFacts("tcp://w:1", exit_code=-9, last_memory_bytes=10, memory_limit_bytes=100))
    assert "most likely for memory" in near.reason
    assert "memory by" not in far.reason and "most likely" not in far.reason


@pytest.mark.parametrize(("exit_code", "word"), [(-11, "SIGSEGV"), (-9, "SIGKILL"), (3, "exit code 3")])
def test_a_process_that_died_of_itself_is_blamed_on_what_ran(exit_code, word):
    loss = diagnose(LossFacts("tcp://w:1", exit_code=exit_code))
    assert word in loss.reason
    assert loss.task_caused


@pytest.mark.parametrize(
    "facts",
    [
        LossFacts("tcp://w:1", exit_code=-15),
        LossFacts("tcp://w:1"),
        LossFacts("tcp://w:1", leaving="retired", exit_code=0),
    ],
)
def test_a_worker_that_was_asked_to_go_or_simply_vanished_is_nobodys_fault(facts):
    assert not diagnose(facts).task_caused


def test_a_signal_counts_for_more_than_the_intention_to_leave():
    assert "SIGSEGV" in diagnose(LossFacts("tcp://w:1", exit_code=-11, leaving="retired")).reason


def test_a_long_list_of_tasks_is_cut():
    loss = diagnose(LossFacts("tcp://w:1", exit_code=-9, ran=[f"stage 1 partition {i}" for i in range(50)]))
    assert "and 45 more" in loss.reason


def test_a_process_of_which_nobody_knows_how_it_ended_is_neither_blamed_nor_cleared():
    lost = diagnose(LossFacts("tcp://w:1", pid=7, has_nanny=False, ran=["stage 1 partition 2"]))
    assert lost.task_caused is None
    assert "nobody could say how its process ended (it has no nanny, which would know)" in lost.reason
    assert "stage 1 partition 2" in lost.reason


def test_nor_is_one_at_whose_address_another_process_is_now():
    lost = diagnose(LossFacts("tcp://w:1", pid=7, came_back=True))
    assert lost.task_caused is None
    assert lost.reason.startswith("worker tcp://w:1 (pid 7) came back as another process")
    assert diagnose(LossFacts("tcp://w:1", came_back=True, exit_code=-11)).task_caused, "somebody knows after all"
    assert diagnose(LossFacts("tcp://w:1", came_back=True, leaving="retired")).task_caused is False
