import ast


def f(values, a):
    # ruleid: code-evaluation
    values.append(eval(a))
    # ruleid: code-evaluation
    exec(a)
    # ruleid: code-evaluation
    return eval("int(" + a + ")")


def g(a):
    # ok: code-evaluation
    b = ast.literal_eval(a)
    # ok: code-evaluation
    return eval("1 + 1") + b
