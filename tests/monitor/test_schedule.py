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


def test_steps_before_the_start_and_from_the_end_on_are_not_read() -> None:
    schedule = EveryNSteps(4, start=3, end=9)
    assert [s for s in range(14) if schedule.due(0, s)] == [3, 4, 8]
    assert not schedule.pending([0], 12)


def test_waiting_puts_off_the_next_reading() -> None:
    schedule = EveryNSteps(2)
    assert schedule.due(0, 0)
    schedule.wait(5)
    assert [s for s in range(1, 10) if schedule.due(0, s)] == [5, 6, 8]


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (-1, None, "start=-1"),
        (0, 0, "end=0"),
        (4, 4, "no step between"),
        (0.5, 2, "0.5"),
    ],
)
def test_a_window_has_steps(start: int, end: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EveryNSteps(1, start, end)
