import hashlib


def f(digests, a, salt):
    # ruleid: weak-hash
    digests.append(hashlib.sha1(a).digest())
    # ruleid: weak-hash
    hashlib.new("md5", a)
    # ruleid: weak-hash
    return hashlib.md5(salt + a).hexdigest()


def g(a):
    # ok: weak-hash
    hashlib.md5(a, usedforsecurity=False)
    # ok: weak-hash
    hashlib.new("sha256", a)
    # ok: weak-hash
    return hashlib.sha512(a).hexdigest()
