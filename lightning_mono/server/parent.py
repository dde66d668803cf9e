"""How the server's other processes depend on the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def leave_to_parent() -> None:
    """Ignores Ctrl-C, which is for the parent, and ends with it, however it ends.

    Without that, a server that was killed would leave a process that holds the model.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is no process of the server's"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="parent", daemon=True).start()
