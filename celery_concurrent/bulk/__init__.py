"""Publishing many inputs of one task, and waiting for their results: ``task_map``."""
