import json
import pickle

import yaml


def f(stream, a):
    # ruleid: unsafe-deserialisation
    one = pickle.load(stream)[a]
    # ruleid: unsafe-deserialisation
    two = pickle.loads(a)
    # ruleid: unsafe-deserialisation
    three = yaml.load(a, Loader=yaml.Loader)
    # ruleid: unsafe-deserialisation
    return one, two, three, yaml.load(a)


def g(a):
    # ok: unsafe-deserialisation
    one = yaml.safe_load(a)
    # ok: unsafe-deserialisation
    two = yaml.load(a, Loader=yaml.SafeLoader)
    # ok: unsafe-deserialisation
    return one, two, json.loads(a), pickle.dumps(a)
