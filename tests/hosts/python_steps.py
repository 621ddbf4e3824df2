"""What the Python programs share: no word of it is needed to use the library."""
import time
from threading import Thread


def step(name, value):
    """Tells the test how far the program is, and waits for it."""
    print(name, value, flush=True)
    input()


def until_it_changes(look, before):
    """Looks again until there is something else, at most ten seconds."""
    deadline = time.monotonic() + 10
    while look() == before and time.monotonic() < deadline:
        time.sleep(0.01)


def eight_threads(work):
    """work(number) in eight threads at once."""
    threads = [Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
