"""One thread at a time, and a child that no thread of its parent can keep waiting."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from blin.turns import Turn


def test_one_thread_at_a_time_which_may_take_it_again() -> None:
    turn, inside, most = Turn(), 0, 0

    def work(number: int) -> None:
        nonlocal inside, most
        with turn, turn:
            inside += 1
            most = max(most, inside)
            time.sleep(0.001)
            inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))
    assert most == 1


def test_it_is_given_back_where_something_goes_wrong() -> None:
    turn = Turn()
    with pytest.raises(ValueError, match="wrong"), turn:
        raise ValueError("wrong")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(turn.__enter__).result(timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_finds_it_free() -> None:
    turn, held, done = Turn(), threading.Event(), threading.Event()

    def hold() -> None:
        with turn:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        with turn:
            os._exit(7)
    ends = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < ends:
        time.sleep(0.01)
    done.set()
    thread.join()
    assert ended[0] == child, "it waits for a thread that is not there"
    assert os.waitstatus_to_exitcode(ended[1]) == 7
