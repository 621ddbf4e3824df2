"""A TCP proxy on loopback that adds a round-trip time. usage: delay.py PORT MILLISECONDS; prints its own port."""
import queue
import socket
import sys
import threading
import time


def pump(source, sink, delay):
    """Every piece of bytes leaves `delay` seconds after it came, however many are on their way."""
    line = queue.SimpleQueue()

    def deliver():
        while piece := line.get():
            due, data = piece
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                sink.sendall(data) if data else sink.shutdown(socket.SHUT_WR)
            except OSError:
                return
            if not data:
                return

    threading.Thread(target=deliver, daemon=True).start()
    while True:
        try:
            data = source.recv(1 << 16)
        except OSError:
            data = b""
        line.put((time.perf_counter() + delay, data))
        if not data:
            return


def main():
    port, delay = int(sys.argv[1]), float(sys.argv[2]) / 2000
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for s in (near, far):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=pump, args=(source, sink, delay), daemon=True).start()


main()
