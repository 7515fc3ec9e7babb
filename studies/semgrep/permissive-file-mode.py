import os
import stat


def f(a, path):
    # ruleid: permissive-file-mode
    os.chmod(a, 0o777)
    # ruleid: permissive-file-mode
    os.chmod(a, 0o666)
    # ruleid: permissive-file-mode
    os.chmod(a, 511)
    # ruleid: permissive-file-mode
    path.chmod(0o664)
    # ruleid: permissive-file-mode
    os.chmod(a, stat.S_IRWXU | stat.S_IRWXO)


def g(a, path):
    # ok: permissive-file-mode
    os.chmod(a, 0o600)
    # ok: permissive-file-mode
    os.chmod(a, 0o644)
    # ok: permissive-file-mode
    path.chmod(0o700)
    # ok: permissive-file-mode
    os.chmod(a, stat.S_IRUSR)
