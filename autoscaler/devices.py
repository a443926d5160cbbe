"""Reading devices without being held up by their driver."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait

from celery.utils.log import get_logger

from celery_concurrent.gpu.device import DeviceSource, Inventory, ReadingError

logger = get_logger(__name__)


class PatientSource:
    """Reads a source on threads of its own; to be asked by one thread.

    A driver that hangs costs the caller ``timeout`` seconds, and no more until it answers: a
    reading that is still under way is not waited for twice.

    Args:
        source: what is read.
        timeout: seconds that a reading may take.
    """

    def __init__(self, source: DeviceSource, *, timeout: float = 1.0) -> None:
        self._source = source
        self._timeout = timeout
        self._asked: Future[Inventory] | None = None
        self._silent = False

    def inventory(self) -> Inventory:
        """What is there now, or was when the source was asked last.

        Raises:
            ReadingError: there is no answer yet.
        """
        if self._asked is None:
            self._asked = Future()
            # A daemon: who hangs in the driver does not keep this process from its end.
            threading.Thread(
                target=self._read, args=(self._asked,), name="devices", daemon=True
            ).start()
            wait([self._asked], self._timeout)
        if not self._asked.done():
            why = f"the devices' driver does not answer within {self._timeout:.0f} s"
            if not self._silent:
                self._silent = True
                logger.warning("%s: no node starts on them until it does", why)
            raise ReadingError(why)
        if self._silent:
            self._silent = False
            logger.warning("the devices' driver answers again")
        answered, self._asked = self._asked, None
        return answered.result()

    def _read(self, asked: Future[Inventory]) -> None:
        try:
            asked.set_result(self._source.inventory())
        except Exception as error:
            asked.set_exception(error)
