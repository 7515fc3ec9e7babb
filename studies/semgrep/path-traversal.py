import tarfile
import zipfile


def f(a, folder):
    with tarfile.open(a) as archive:
        # ruleid: path-traversal
        archive.extractall(folder)
    archive = tarfile.open(a, "r:gz")
    # ruleid: path-traversal
    archive.extractall(folder, filter="fully_trusted")


def g(a, folder):
    with tarfile.open(a) as archive:
        # ok: path-traversal
        archive.extractall(folder, filter="data")
    with zipfile.ZipFile(a) as packed:
        # ok: path-traversal
        packed.extractall(folder)
