"""TLS server on OpenSSL: says which server name each client port sent."""

import socket
import ssl
import sys
import threading

directory, port = sys.argv[1], int(sys.argv[2])


def serve(connection, client):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(directory + "/cert.pem", directory + "/key.pem")

    def named(_socket, name, _context):
        sys.stdout.write(f"{client} {name or ''}\n")
        sys.stdout.flush()

    context.sni_callback = named
    try:
        with context.wrap_socket(connection, server_side=True) as stream:
            stream.recv(1)
    except (OSError, ValueError):
        pass
    finally:
        connection.close()


listener = socket.create_server(
    ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512
)
while True:
    accepted, address = listener.accept()
    threading.Thread(target=serve, args=(accepted, address[1]), daemon=True).start()
