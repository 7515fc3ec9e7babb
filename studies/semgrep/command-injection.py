import os
import subprocess


def f(a, folder):
    # ruleid: command-injection
    subprocess.run("git " + a, shell=True, cwd=folder)
    # ruleid: command-injection
    subprocess.check_output(f"git {a}", shell=True)
    command = "git " + a
    # ruleid: command-injection
    subprocess.Popen(command, shell=True)
    # ruleid: command-injection
    os.system("ping " + a)
    # ruleid: command-injection
    return os.popen(a).read()


def g(a, folder):
    # ok: command-injection
    subprocess.run(["git", a], cwd=folder)
    # ok: command-injection
    subprocess.run("git status", shell=True)
    # ok: command-injection
    os.system("clear")
