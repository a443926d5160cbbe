"""The apps that contenders serve: one module each, all with the same two tasks.

They are told their queue, task and slots by :class:`benchmarks.settings.NodeSettings`.
"""
