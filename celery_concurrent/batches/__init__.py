"""One call for many inputs: what waits while a call runs goes into the next one."""
