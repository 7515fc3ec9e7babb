import random
import secrets
from random import randint


def f(codes, a, limit):
    # ruleid: weak-random
    codes[a] = random.getrandbits(64)
    # ruleid: weak-random
    one = randint(0, limit)
    # ruleid: weak-random
    return one, "".join(random.choice(a) for _ in range(16))


def g(a, limit):
    # ok: weak-random
    one = secrets.randbelow(limit)
    # ok: weak-random
    two = random.SystemRandom().choice(a)
    # ok: weak-random
    return one, two, secrets.choice(a)
