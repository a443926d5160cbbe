"""``python -m tests.services.fake_nvml.reader``: an inventory for each line on stdin.

A process of its own, for the bindings load the driver's library once and for all. It prints
JSON: the inventory, and what was logged meanwhile.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict

from celery_concurrent.gpu.nvml import Nvml


def main() -> None:
    said: list[str] = []
    catcher = logging.Handler()
    catcher.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.basicConfig(handlers=[catcher], level=logging.INFO)
    reader = Nvml()
    for _ in sys.stdin:
        found = asdict(reader.inventory())
        print(json.dumps({"inventory": found, "said": said}), flush=True)
        said.clear()
    reader.close()


if __name__ == "__main__":
    main()
