import socket
from http.server import HTTPServer


def f(app, handler, a):
    server = socket.socket()
    # ruleid: open-to-every-network
    server.bind(("0.0.0.0", a))
    # ruleid: open-to-every-network
    server.bind(("", a))
    host = "0.0.0.0"
    # ruleid: open-to-every-network
    server.bind((host, a))
    # ruleid: open-to-every-network
    app.run(host="0.0.0.0", port=a)
    # ruleid: open-to-every-network
    return HTTPServer(("0.0.0.0", a), handler)


def g(handler, a):
    server = socket.socket()
    # ok: open-to-every-network
    server.bind(("127.0.0.1", a))
    # ok: open-to-every-network
    server.connect(("0.0.0.0", a))
    # ok: open-to-every-network
    return HTTPServer(("localhost", a), handler)
