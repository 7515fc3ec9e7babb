import ssl

import requests


def f(connection, a, data):
    # ruleid: disabled-tls-check
    requests.post(a, data, timeout=10, verify=False)
    session = requests.Session()
    # ruleid: disabled-tls-check
    session.verify = False
    # ruleid: disabled-tls-check
    context = ssl._create_unverified_context()
    # ruleid: disabled-tls-check
    context.check_hostname = False
    # ruleid: disabled-tls-check
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection, server_hostname=a)


def g(connection, a):
    # ok: disabled-tls-check
    requests.get(a, timeout=10)
    # ok: disabled-tls-check
    requests.get(a, verify="bundle.pem")
    # ok: disabled-tls-check
    context = ssl.create_default_context()
    # ok: disabled-tls-check
    return context.wrap_socket(connection, server_hostname=a)
