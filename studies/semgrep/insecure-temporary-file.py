import os
import tempfile


def f(a, suffix, mode):
    # ruleid: insecure-temporary-file
    path = tempfile.mktemp(suffix)
    # ruleid: insecure-temporary-file
    one = open("/tmp/data.tmp", mode)
    # ruleid: insecure-temporary-file
    two = os.path.join("/tmp", a)
    # ruleid: insecure-temporary-file
    three = "/tmp/" + a
    # ruleid: insecure-temporary-file
    four = f"/tmp/{a}.txt"
    name = "/tmp/fixed"
    # ruleid: insecure-temporary-file
    return path, one, two, three, four, open(name, "w")


def g(a, suffix, mode):
    # ok: insecure-temporary-file
    handle, path = tempfile.mkstemp(suffix)
    # ok: insecure-temporary-file
    one = tempfile.TemporaryFile(mode)
    # ok: insecure-temporary-file
    return handle, path, one, open("/home/tmp/" + a), open(a, "w")
