"""Found on the path of a test's nodes: one that hangs tells where, green threads included.

Signalled with SIGURG, which a process without this ignores, it prints its stacks. Celery has such
a handler of its own, which sees threads only.
"""

import gc
import signal
import sys
import traceback
from typing import Any


def _tell(*_: Any) -> None:
    greenlets = sys.modules.get("greenlet")
    if greenlets is not None:
        for one in gc.get_objects():
            if isinstance(one, greenlets.greenlet) and one.gr_frame is not None:
                print("--", one, file=sys.stderr)
                traceback.print_stack(one.gr_frame)
    for thread, frame in sys._current_frames().items():
        print("-- thread", thread, file=sys.stderr)
        traceback.print_stack(frame)
    sys.stderr.flush()


signal.signal(signal.SIGURG, _tell)
