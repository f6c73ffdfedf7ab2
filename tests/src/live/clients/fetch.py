"""Asks an address for names over TLS, each on a connection of its own: fetch.py ADDRESS CA NAME/MILLISECONDS..."""

import socket
import ssl
import sys
import threading


def ask(address, context, name, limit):
    try:
        with socket.create_connection((address, 443), timeout=limit) as stream:
            with context.wrap_socket(stream, server_hostname=name) as tls:
                tls.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while more := tls.recv(4096):
                    answer += more
    except OSError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return
    if f"served {name}\n".encode() in answer:
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


trusting = ssl.create_default_context(cafile=sys.argv[2])
threads = []
for wanted in sys.argv[3:]:
    host, milliseconds = wanted.split("/")
    arguments = (sys.argv[1], trusting, host, int(milliseconds) / 1000)
    threads.append(threading.Thread(target=ask, args=arguments))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
