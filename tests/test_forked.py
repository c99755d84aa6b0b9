"""Tasks shared out among forks: whatever happens to one, each task has one result."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dln_momentum import InputError
from dln_momentum.sweeps.forked import beside, can_fork, results_of

pytestmark = pytest.mark.skipif(not can_fork(), reason="no forks on this system")


class UnsendableError(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def test_each_task_has_one_result_from_one_of_several_processes() -> None:
    found: dict[Any, Any] = dict(
        results_of(lambda task: (task**2, os.getpid()), range(9), workers=2)
    )
    assert {task: square for task, (square, _) in found.items()} == {n: n**2 for n in range(9)}
    assert len({process for _, process in found.values()} - {os.getpid()}) == 2
    # too few for two
    alone = results_of(lambda task: os.getpid(), [1, 2, 3], 2)
    assert {process for _, process in alone} == {os.getpid()}


def test_one_process_leaves_its_tasks_to_a_fork_while_it_does_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, done, told = os.getpid(), list[int](), list[Any]()

    def meanwhile() -> None:
        assert told == []
        done.append(os.getpid())

    def task(number: int, tell: Any) -> tuple[int, int]:
        tell(number)
        return number, os.getpid()

    def found() -> list[tuple[int, int]]:
        results = results_of(task, [3, 4], 1, least=1, notes=told.append, meanwhile=meanwhile)
        return [result for _, result in results if not isinstance(result, Exception)]

    (first, process), (second, same) = found()
    assert (first, second, done, told) == (3, 4, [here], [3, 4])
    assert process == same != here
    # without forks there is no meanwhile
    monkeypatch.setattr("dln_momentum.sweeps.forked.can_fork", lambda: False)
    told.clear()
    assert found() == [(3, here), (4, here)]
    assert done == [here]


def test_a_fork_that_has_not_said_anything_is_not_waited_for(tmp_path: Path) -> None:
    """One that compiles kernels takes longer than a user who has changed his mind."""

    def interrupted() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    def compiling(*_: Any) -> None:
        (tmp_path / "started").touch()
        time.sleep(60)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(results_of(compiling, [0], 1, least=1, notes=print, meanwhile=interrupted))
    assert time.monotonic() - started < 10  # of `PATIENCE`, 20
    assert multiprocessing.active_children() == []


def test_what_a_fork_prints_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("w") as out:  # which is buffered, as a pipe is
        monkeypatch.setattr("sys.stdout", out)
        print("before")
        found = dict(results_of(lambda task: print(f"task {task}"), range(8), workers=2))
        monkeypatch.undo()
    assert set(found.values()) == {None}
    assert sorted((tmp_path / "out").read_text().splitlines()) == [
        "before", *(f"task {task}" for task in range(8))
    ]  # fmt: skip


def test_exceptions_are_results_and_say_where_they_were_raised() -> None:
    def raising(task: int) -> int:
        if task == 1:
            raise InputError(["a", "b"])
        if task == 2:
            raise UnsendableError(1, 2)
        return task

    found = dict(results_of(raising, range(8), workers=2))
    assert isinstance(found[1], InputError)
    assert found[1].problems == ["a", "b"]
    assert "in raising" in "".join(traceback.format_exception(found[1]))
    assert str(found[2]) == "UnsendableError: 1 and 2"
    assert [found[task] for task in (0, 3, 4, 5, 6, 7)] == [0, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("deadly", [{2}, {2, 5}])
def test_of_a_fork_that_dies_one_task_fails_and_the_others_are_done(deadly: set[int]) -> None:
    """By the other fork, or here where that has died too."""
    here = os.getpid()

    def dying(task: int) -> int:
        if task in deadly and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    found = dict(results_of(dying, range(10), workers=2))
    assert found.keys() == set(range(10))
    failed = {task: str(result) for task, result in found.items() if isinstance(result, Exception)}
    assert failed.keys() == deadly
    assert all("code -9" in text for text in failed.values())
    assert (found[9] == here) == (len(deadly) == 2)


def test_notes_of_a_task_come_before_its_result() -> None:
    told: list[tuple[int, int]] = []

    def telling(task: int, tell: Any) -> int:
        tell((task, os.getpid()))
        return task

    for workers, least in ((2, 1), (1, 1)):
        told.clear()
        for task, result in results_of(telling, range(4), workers, least=least, notes=told.append):
            assert result == task
            assert task in dict(told)
        assert (os.getpid() in dict(told).values()) == (workers == 1)


def test_whoever_stops_waits_for_the_task_in_hand_and_not_for_the_rest(tmp_path: Path) -> None:
    def slow(task: int) -> int:
        (tmp_path / f"begun_{task}").touch()
        time.sleep(0.05)
        (tmp_path / f"ended_{task}").touch()
        return task

    def stopped() -> None:
        with closing(results_of(slow, range(200), workers=2)) as results:
            for _ in results:
                # as by Ctrl-C, which a terminal sends to the forks as well
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    begun, ended = ({p.name[6:] for p in tmp_path.glob(f"{name}_*")} for name in ("begun", "ended"))
    assert begun == ended
    assert len(ended) < 20
    time.sleep(0.1)
    assert {p.name[6:] for p in tmp_path.glob("begun_*")} == begun


def test_forks_ignore_signals_and_end_with_their_parent(tmp_path: Path) -> None:
    """A parent that is killed leaves no fork behind that goes on with its tasks."""

    def task(number: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        (tmp_path / str(number)).touch()
        time.sleep(0.02)
        return number

    parent = os.fork()
    if parent == 0:
        for number, _ in results_of(task, range(1000), workers=2):
            if number > 8:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == -signal.SIGKILL
    time.sleep(0.1)
    done = len(list(tmp_path.iterdir()))
    assert 8 < done < 100
    time.sleep(0.1)
    assert len(list(tmp_path.iterdir())) == done


def test_something_is_done_beside_the_body_and_has_ended_after_it(tmp_path: Path) -> None:
    def write() -> None:
        time.sleep(0.05)
        (tmp_path / "writer").write_text(str(os.getpid()))

    with beside(write):
        assert not (tmp_path / "writer").exists()
    assert int((tmp_path / "writer").read_text()) != os.getpid()
    # a body that fails hides nothing of it
    (tmp_path / "writer").unlink()
    with pytest.raises(KeyError), beside(write):
        raise KeyError
    assert (tmp_path / "writer").exists()


def test_what_is_done_beside_fails_here_and_is_done_here_where_the_fork_dies() -> None:
    here, done = os.getpid(), list[int]()

    def dying() -> None:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(os.getpid())

    def refusing() -> None:
        raise OSError(28, "No space left on device")

    with beside(dying):
        pass
    assert done == [here]
    with pytest.raises(OSError, match="No space"), beside(refusing):
        done.append(0)
    assert done == [here, 0]


def test_without_forks_everything_is_done_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dln_momentum.sweeps.forked.can_fork", lambda: False)
    here, order = os.getpid(), list[Any]()
    with beside(lambda: order.append(os.getpid())):
        order.append("body")
    assert order == [here, "body"]
    assert {process for _, process in results_of(lambda _: os.getpid(), range(9), 2)} == {here}
