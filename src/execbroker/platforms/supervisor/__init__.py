"""Runs one session's program in a process of its own, broker or no broker.

It is run by path, as `python -I -S platforms/supervisor FOLDER`, and needs the standard library and FOLDER/run/launch.json
alone; that is why its modules import one another relatively. A file `deadline` beside that one tells it a new end. What it
knows it writes there too: `lock` (locked while it lives), `started` (before the program is), `ports`, `stdout`, `stderr`,
and `status` (blank until the end).
"""
