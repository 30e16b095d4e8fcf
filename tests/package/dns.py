"""A name server that knows a few addresses: NAME=ADDRESS... on 127.0.0.53, port 53."""

import socket
import struct
import sys


def answer(query, table):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    kind = struct.unpack("!H", query[at + 1:at + 3])[0]
    address = table.get(".".join(labels).lower())
    found = address is not None and kind == 1
    head = query[:2] + struct.pack("!HHHHH", 0x8180 if address else 0x8183, 1, int(found), 0, 0)
    text = head + query[12:at + 5]
    if found:
        text += struct.pack("!HHHIH", 0xc00c, 1, 1, 60, 4) + socket.inet_aton(address)
    return text


def main():
    table = dict(item.lower().split("=") for item in sys.argv[1:])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.53", 53))
        while True:
            query, peer = sock.recvfrom(4096)
            sock.sendto(answer(query, table), peer)


main()
