import pytest

from gradlab.monitor._schedule import EveryNSteps


def test_one_optimizer_is_read_at_the_multiples_of_n() -> None:
    schedule = EveryNSteps(3)
    assert [s for s in range(10) if schedule.due(0, s)] == [0, 3, 6, 9]


def test_a_resumed_run_is_read_at_once_and_then_at_the_multiples() -> None:
    schedule = EveryNSteps(10)
    assert [s for s in range(25, 50) if schedule.due(0, s)] == [25, 30, 40]


def test_optimizers_that_take_turns_are_all_read() -> None:
    schedule = EveryNSteps(4)
    read = [(s % 2, s) for s in range(10) if schedule.due(s % 2, s)]
    assert read == [(0, 0), (1, 1), (0, 4), (1, 5), (0, 8), (1, 9)]


def test_a_step_is_read_once_however_often_it_is_offered() -> None:
    schedule = EveryNSteps(1)
    assert [schedule.due(0, 5) for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("n", [0, -2, 1.5, True, "10"])
def test_n_is_a_whole_number_of_steps(n: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {n!r}"):
        EveryNSteps(n)
