"""A TCP proxy that cuts, delays, goes silent, counts, and can speak TLS to its clients."""
import re
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

REQUEST = re.compile(rb"(?:POST|GET) (\S+) HTTP/1\.1\r\n")


class Proxy:
    """`target` is a URL and may be changed at any time: new connections go there."""

    def __init__(self, target, tls=None):
        self.target, self.tls = target, tls  # tls: (certificate file, key file)
        self.delay = 0.0  # seconds for each chunk, each way
        self.silent = False  # swallow everything
        self.rewrite = None  # a function of the bytes of a request, as they come
        self.cut_after = None  # bytes of answers until every connection is cut
        self.requests, self.bytes_back, self.connections = [], 0, 0
        self._open, self._listener = set(), socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://{'localhost' if self.tls else '127.0.0.1'}:{self.port}"

    def stop(self):
        self._shut(self._listener)
        self.cut()

    def cut(self):
        """Ends every connection."""
        for connection in list(self._open):
            self._shut(connection)

    @staticmethod
    def _shut(connection):
        for step in (lambda: connection.shutdown(socket.SHUT_RDWR), connection.close):
            try:
                step()
            except OSError:
                pass

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        self.connections += 1
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self.tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.tls)
                client = context.wrap_socket(client, server_side=True)
            split = urlsplit(self.target)
            server = socket.create_connection((split.hostname, split.port), 10)
        except OSError:
            return self._shut(client)
        server.settimeout(None)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open |= {client, server}
        back = threading.Thread(target=self._pump, args=(server, client, self._answered), daemon=True)
        back.start()
        self._pump(client, server, self._asked)
        back.join()
        self._open -= {client, server}

    def _asked(self, data):
        self.requests += [path.decode() for path in REQUEST.findall(data)]

    def _answered(self, data):
        self.bytes_back += len(data)
        if self.cut_after is not None:
            self.cut_after -= len(data)
            if self.cut_after <= 0:
                raise ConnectionAbortedError

    def _pump(self, source, sink, seen):
        try:
            while data := source.recv(1 << 16):
                if self.delay:
                    time.sleep(self.delay)
                while self.silent:
                    time.sleep(0.02)
                    if source.fileno() < 0:
                        return
                seen(data)
                if self.rewrite and seen == self._asked:
                    data = self.rewrite(data)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            self._shut(source)
            self._shut(sink)
