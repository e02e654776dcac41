"""Requests that come when they like, and workers that answer them in turn.

The arrivals do not wait for the answers, and a latency counts from the moment a request came, not from the moment
somebody took it: a worker that is behind cannot hide that others wait.
"""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np


def poisson(rate: float, count: int, seed: int) -> np.ndarray:
    """(count,) seconds at which requests come, ascending: a Poisson process of `rate` requests a second. One seed gives
    one process; at another rate the same one runs faster or slower."""
    return np.random.default_rng(seed).exponential(size=count).cumsum() / rate


def serve(
    answer: Callable[[int], object],
    arrivals: np.ndarray,
    workers: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> np.ndarray:
    """Answer requests 0 ... n - 1, which come at `arrivals` (n,), seconds from now, by so many threads. Whoever is free
    takes the next one and, where it has not come yet, waits for it: a queue with that many servers, and no thread
    beside them that hands out.

    Args:
        answer: called with the number of a request, by several threads at once.
        clock, sleep: of seconds; real ones when left out.

    Returns (n,) seconds from arrival to answer. What `answer` raises is raised, once the workers are done.
    """
    queue: SimpleQueue[int | None] = SimpleQueue()
    for request in (*range(len(arrivals)), *[None] * workers):
        queue.put(request)
    answered, failures = np.zeros(len(arrivals)), []
    start = clock()

    def work() -> None:
        try:
            for request in iter(queue.get, None):
                early = arrivals[request] - (clock() - start)
                if early > 0:
                    sleep(early)
                answer(request)
                answered[request] = clock() - start
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, name=f"spnet-server-{k}") for k in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return answered - arrivals
