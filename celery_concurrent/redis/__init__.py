"""A Redis channel that takes several inputs in one step and loses none of them.

The keys and their contents stay kombu's: stock workers and clients can share the queues.
"""
