"""Nodes as processes of this machine (Linux), pinned to its devices.

The invariants that the modules here keep, whoever is killed at whatever instant:

1. A record stands before its process exists. The file is locked by whoever makes it, and the
   new process inherits the lock with the open file; it gives the lock back only when it has
   written its own process id and start time into the record.
2. So a record without a process id is a node to be if it is locked, and nothing at all if it
   is not. A record with one is the process with that id *and* that start time in that boot,
   or nothing: a recycled id never passes for a node.
3. A mark that a node drains, with its deadline, stands before it is told to.
4. A record is removed only when nobody holds its lock and the process that signed it is gone:
   whether a start that failed has made a process all the same, the record tells.
5. Nodes do not die with the autoscaler, its template process does.
"""
