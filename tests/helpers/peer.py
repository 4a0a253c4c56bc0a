"""Both ends of a conversation, in one file for `python3 -c`: serve NAME PROTOCOL:PORT..., ask PROTOCOL ADDRESS PORT, or
ping ADDRESS..., through sockets that need no privilege where ping_group_range has the caller's group (icmp(7)).

A server answers with its name and the address that it sees the client at, then echoes.  `ask` prints that, once for
each of COUNT connections that are open at the same time; exit code 1 when one gets no answer.
"""

import socket
import sys
import threading

SECONDS = 3


def serve(name: str, *places: str) -> None:
    for place in places:
        protocol, _, port = place.partition(":")
        threading.Thread(target={"tcp": serve_tcp, "udp": serve_udp}[protocol], args=(name, int(port))).start()


def listen(kind: int, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("::", port))
    return sock


def told(name: str, client: str) -> bytes:
    return f"{name} {client.removeprefix('::ffff:')}\n".encode()


def serve_tcp(name: str, port: int) -> None:
    sock = listen(socket.SOCK_STREAM, port)
    sock.listen(256)
    while True:
        connection, client = sock.accept()
        threading.Thread(target=echo, args=(connection, told(name, client[0]))).start()


def echo(connection: socket.socket, first: bytes) -> None:
    with connection:
        connection.sendall(first)
        while data := connection.recv(65536):
            connection.sendall(data)


def serve_udp(name: str, port: int) -> None:
    sock = listen(socket.SOCK_DGRAM, port)
    while True:
        data, client = sock.recvfrom(65536)
        sock.sendto(told(name, client[0]) + data, client)


def ask(protocol: str, address: str, port: str, count: str = "1", size: str = "1") -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    found = []
    for _ in range(int(count)):
        family, _, _, _, place = socket.getaddrinfo(address, int(port), type=kind)[0]
        sock = socket.socket(family, kind)
        sock.settimeout(SECONDS)
        sock.connect(place)
        found.append(sock)
    for sock in found:
        print(converse(sock, kind, int(size)))


def converse(sock: socket.socket, kind: int, size: int) -> str:
    """What the server calls us, after `size` bytes came back as they were sent."""
    data = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    if kind == socket.SOCK_DGRAM:
        sock.send(data)
        first, _, rest = sock.recv(65536).partition(b"\n")
    else:
        # We speak first: Debian's pasta loses what a server says before.
        file = sock.makefile("rb")
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        first, rest = file.readline().strip(), b""
        while len(rest) < len(data):
            part = file.read1(65536)
            if not part:
                raise ConnectionError("nobody is there behind it")
            rest += part
        sender.join()
    assert rest == data
    return first.decode()


def ping(*addresses: str) -> None:
    for address in addresses:
        family, _, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM)[0]
        v6 = family == socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
        sock.settimeout(SECONDS)
        request, reply = (128, 129) if v6 else (8, 0)
        sock.sendto(bytes([request, 0, 0, 0, 0, 0, 0, 1]) + b"data", place)  # The kernel sets identifier and checksum.
        data, (sender, *_) = sock.recvfrom(100)
        assert data[0] == reply and data[8:] == b"data", data
        print(sender)


if __name__ == "__main__":
    try:
        {"serve": serve, "ask": ask, "ping": ping}[sys.argv[1]](*sys.argv[2:])
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
