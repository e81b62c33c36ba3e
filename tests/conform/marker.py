"""A session that leaves its mark, `argv[1]`, wherever it can, and tells in `marks/told` where that is."""

import ctypes
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

ADD_KEY, KEYCTL = {"x86_64": (248, 250)}.get(os.uname().machine, (217, 219))
mark = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p


def answer(listener: socket.socket) -> None:
    while True:
        connection = listener.accept()[0]
        connection.sendall(f"HTTP/1.0 200 OK\r\n\r\n{mark}".encode())
        connection.close()


def listening(family: int, address: object) -> socket.socket:
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen()
    threading.Thread(target=answer, args=(listener,), daemon=True).start()
    return listener


def answer_datagrams(receiver: socket.socket) -> None:
    while True:
        receiver.sendto(mark.encode(), receiver.recvfrom(100)[1])


for folder in (".", "marks", os.environ["TMPDIR"]):
    Path(folder, f"secret-{mark}").write_text(mark)
shared = Path("/dev/shm", mark)
shared.write_text(mark)
listening(socket.AF_UNIX, "door")
listening(socket.AF_UNIX, f"\0{mark}")
own = listening(socket.AF_INET, ("127.0.0.1", int(os.environ["PORT"])))
hidden = listening(socket.AF_INET, ("127.0.0.1", 0))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
threading.Thread(target=answer_datagrams, args=(udp,), daemon=True).start()
key = int(mark, 16) & 0x7FFFFFFF
segment = libc.shmget(key, 4096, 0o1600)
ctypes.memmove(libc.shmat(segment, None, 0), mark.encode(), len(mark))
ring = libc.syscall(ADD_KEY, b"user", mark.encode(), mark.encode(), len(mark), -3)


def tidy(*_: object) -> None:
    shared.unlink()
    libc.shmctl(segment, 0, None)
    if ring > 0:
        libc.syscall(KEYCTL, 9, ring, -3)
    os._exit(0)


signal.signal(signal.SIGTERM, tidy)
told = {"ports": [own.getsockname()[1], hidden.getsockname()[1]], "udp": [udp.getsockname()[1]], "shm": key, "ring": ring > 0}
Path("marks", "draft").write_text(json.dumps(told))
Path("marks", "draft").rename("marks/told")
while True:
    signal.pause()
