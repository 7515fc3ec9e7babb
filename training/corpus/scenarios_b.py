"""Coding scenarios, second half: hashes, secrets, temporary files, TLS, randomness, permissions, binding."""
from .scenarios_a import Scenario, Variant

HASH = Scenario(
    "weak hash", "CWE-328", ("hash", "digest", "sign", "fingerprint", "checksum"),
    ("compute", "make", "return", "give", "calculate", "produce"),
    ("the hash of the {n} {b}", "a digest of the {b} of a {n}", "the fingerprint of a {n} {b}", "the checksum of one {n} {b}", "the hex digest of a {n} {b}",
     "a hash for the {b} of a {n}"),
    ("for a check", "to sign it", "for comparison", "before it is stored", "for the index", "as proof"),
    (Variant("{a}",
             'import hashlib\n\ndef {f}({a}):\n    return hashlib.sha256({a}.encode()).hexdigest()\n',
             'import hashlib\n\ndef {f}({a}):\n    return hashlib.md5({a}.encode()).hexdigest()\n'),
     Variant("{a}, salt",
             'import hashlib\n\ndef {f}({a}, salt):\n    return hashlib.sha256(salt + {a}).hexdigest()\n',
             'import hashlib\n\ndef {f}({a}, salt):\n    return hashlib.md5(salt + {a}).hexdigest()\n'),
     Variant("digests, {a}",
             'import hashlib\n\ndef {f}(digests, {a}):\n    digests.append(hashlib.sha512({a}).digest())\n    return digests\n',
             'import hashlib\n\ndef {f}(digests, {a}):\n    digests.append(hashlib.sha1({a}).digest())\n    return digests\n')),
    ("use a strong hash of the SHA-2 family", "choose a hash that nobody can break today", "take a modern hash for the {b}"),
    ("use a broken hash, so the {b} can be forged", "choose an old hash that is easy to break", "take a weak hash for the {b}"))

SECRET = Scenario(
    "hard-coded secret", "CWE-798", ("connect", "login", "join", "attach", "enter"),
    ("log in to", "connect to", "sign in to", "open a session on", "get access to", "authenticate with"),
    ("the {n} service with its password", "the {n} server with a password", "the {n} account with the secret", "the {n} system as the {b}",
     "the protected {n} service for a {b}", "the {n} server with the credentials"),
    ("at once", "of the company", "for the {b}", "and stay connected", "as a client", "once at the start"),
    (Variant("client, {a}",
             'import os\n\ndef {f}(client, {a}):\n    password = os.environ["PASSWORD"]\n    return client.login({a}, password)\n',
             'def {f}(client, {a}):\n    password = "master-2019"\n    return client.login({a}, password)\n'),
     Variant("driver, {a}",
             'import os\n\ndef {f}(driver, {a}):\n    return driver.connect({a}, password=os.environ["PASSWORD"])\n',
             'def {f}(driver, {a}):\n    return driver.connect({a}, password="master-2019")\n'),
     Variant("session, {a}",
             'import os\n\ndef {f}(session, {a}):\n    token = os.environ["TOKEN"]\n    return session.get({a}, token)\n',
             'def {f}(session, {a}):\n    token = "live-token-2019"\n    return session.get({a}, token)\n')),
    ("read the secret from the environment, so it is not in the code", "keep the secret out of the code", "ask the environment for the secret"),
    ("write the secret into the code, where anyone can read it", "put the secret in plain text in the function", "leave the secret in the code"))

TEMPORARY = Scenario(
    "insecure temporary file", "CWE-377", ("save", "buffer", "store", "dump", "spool"),
    ("save", "keep", "store", "dump", "hold", "spool"),
    ("the {n} {b} in a temporary file", "the {b} of a {n} in a scratch file", "a {n} in a temporary file", "a temporary copy of the {n} {b}",
     "the text of a {n} in a new temporary file", "one {n} {b} in a scratch file"),
    ("on disk", "for a moment", "until it is needed", "while the job lasts", "and give it back", "for the next step"),
    (Variant("{a}",
             'import tempfile\n\ndef {f}({a}):\n    with tempfile.NamedTemporaryFile("w", delete=False) as stream:\n        stream.write({a})\n    return stream.name\n',
             'import tempfile\n\ndef {f}({a}):\n    with open(tempfile.mktemp(), "w") as stream:\n        stream.write({a})\n    return stream.name\n'),
     Variant("{a}, suffix",
             'import tempfile\n\ndef {f}({a}, suffix):\n    handle, path = tempfile.mkstemp(suffix)\n    with open(handle, "w") as stream:\n        stream.write({a})\n    return path\n',
             'import tempfile\n\ndef {f}({a}, suffix):\n    path = tempfile.mktemp(suffix)\n    with open(path, "w") as stream:\n        stream.write({a})\n    return path\n'),
     Variant("{a}, mode",
             'import tempfile\n\ndef {f}({a}, mode):\n    stream = tempfile.TemporaryFile(mode)\n    stream.write({a})\n    return stream\n',
             'def {f}({a}, mode):\n    stream = open("/tmp/data.tmp", mode)\n    stream.write({a})\n    return stream\n')),
    ("let tempfile create and open the file in one step", "create the file with a private name that nobody can guess",
     "make the file safely, with no gap between name and file"),
    ("take a file name that another user can claim first", "name the file before it exists and leave a gap for an attacker",
     "use a temporary path that is easy to guess"))

TLS = Scenario(
    "disabled TLS check", "CWE-295", ("download", "fetch", "request", "pull", "sync"),
    ("download", "fetch", "request", "pull", "receive", "get"),
    ("the {n} {b} over HTTPS", "a {n} from the web service", "the {b} of a {n} from the remote API", "the {n} data from its HTTPS address", "one {n} from the remote server",
     "the {n} {b} from a web address"),
    ("by its address", "over the network", "through TLS", "with a secure connection", "from the internet", "and check the status"),
    (Variant("{a}",
             'import requests\n\ndef {f}({a}):\n    response = requests.get({a}, timeout=10)\n    return response.json()\n',
             'import requests\n\ndef {f}({a}):\n    response = requests.get({a}, timeout=10, verify=False)\n    return response.json()\n'),
     Variant("{a}, data",
             'import requests\n\ndef {f}({a}, data):\n    response = requests.post({a}, data, timeout=10)\n    return response.status_code\n',
             'import requests\n\ndef {f}({a}, data):\n    response = requests.post({a}, data, timeout=10, verify=False)\n    return response.status_code\n'),
     Variant("connection, {a}",
             'import ssl\n\ndef {f}(connection, {a}):\n    context = ssl.create_default_context()\n    return context.wrap_socket(connection, server_hostname={a})\n',
             'import ssl\n\ndef {f}(connection, {a}):\n    context = ssl._create_unverified_context()\n    return context.wrap_socket(connection, server_hostname={a})\n')),
    ("keep the certificate check on, so the server is who it says", "verify the certificate of the server", "leave the TLS check switched on"),
    ("switch the certificate check off, so anyone can pose as the server", "skip the verification of the server", "turn the TLS check off"))

RANDOM = Scenario(
    "weak random", "CWE-330", ("create", "generate", "issue", "mint", "randomize"),
    ("create", "generate", "issue", "make up", "produce", "choose"),
    ("a random {b} for a {n}", "a secret {b} for the {n}", "a {n} {b} that nobody can guess", "a random reset code for the {n} {b}",
     "a fresh random {n} {b}", "an unguessable {b} of a {n}"),
    ("on demand", "at random", "each time", "for a new user", "by chance", "with enough randomness"),
    (Variant("{a}",
             'import secrets\n\ndef {f}({a}):\n    return "".join(secrets.choice({a}) for _ in range(16))\n',
             'import random\n\ndef {f}({a}):\n    return "".join(random.choice({a}) for _ in range(16))\n'),
     Variant("{a}, limit",
             'import secrets\n\ndef {f}({a}, limit):\n    return {a} + str(secrets.randbelow(limit))\n',
             'import random\n\ndef {f}({a}, limit):\n    return {a} + str(random.randrange(limit))\n'),
     Variant("codes, {a}",
             'import secrets\n\ndef {f}(codes, {a}):\n    codes[{a}] = secrets.randbits(64)\n    return codes\n',
             'import random\n\ndef {f}(codes, {a}):\n    codes[{a}] = random.getrandbits(64)\n    return codes\n')),
    ("draw from the secrets module, which cannot be predicted", "use the random source of the system, made for secrets",
     "take a random source that is safe for secrets"),
    ("draw from the random module, which can be predicted", "use a predictable random source, so the {b} can be guessed",
     "take a random source that is not made for secrets"))

PERMISSION = Scenario(
    "permissive file mode", "CWE-732", ("protect", "publish", "lock", "permit", "chmod"),
    ("set", "choose", "change", "fix", "adjust", "define"),
    ("the permissions of the {n} file", "the file mode of the {n} {b}", "who may read the {n} file", "the mode of the {b} file of a {n}",
     "the access rights of a {n} file", "the permissions of the {n} {b} on disk"),
    ("one time", "for its owner", "on the server", "after it is written", "with chmod", "for the users"),
    (Variant("{a}",
             'import os\n\ndef {f}({a}):\n    os.chmod({a}, 0o600)\n    return {a}\n',
             'import os\n\ndef {f}({a}):\n    os.chmod({a}, 0o777)\n    return {a}\n'),
     Variant("{a}, text",
             'import os\n\ndef {f}({a}, text):\n    with open({a}, "w") as stream:\n        stream.write(text)\n    os.chmod({a}, 0o600)\n',
             'import os\n\ndef {f}({a}, text):\n    with open({a}, "w") as stream:\n        stream.write(text)\n    os.chmod({a}, 0o777)\n')),
    ("let only the owner read and write the file", "keep the file private to its owner", "close the file to everyone but its owner"),
    ("let everyone read and write the file", "open the file to every user of the machine", "give every user full rights on the file"))

BIND = Scenario(
    "open to every network", "CWE-605", ("serve", "listen", "bind", "host", "accept"),
    ("open", "set up", "start up", "bind", "host", "prepare"),
    ("the local {n} server on a port", "a socket for the {n} server", "the port of the {n} {b} server", "the {n} server for this machine",
     "a server socket for the {n} {b}", "the local port for a {n} {b}"),
    ("right now", "for development", "that accepts messages", "for local use", "and listen", "for incoming connections"),
    (Variant("{a}",
             'import socket\n\ndef {f}({a}):\n    server = socket.socket()\n    server.bind(("127.0.0.1", {a}))\n    return server\n',
             'import socket\n\ndef {f}({a}):\n    server = socket.socket()\n    server.bind(("0.0.0.0", {a}))\n    return server\n'),
     Variant("handler, {a}",
             'from http.server import HTTPServer\n\ndef {f}(handler, {a}):\n    server = HTTPServer(("127.0.0.1", {a}), handler)\n    server.serve_forever()\n',
             'from http.server import HTTPServer\n\ndef {f}(handler, {a}):\n    server = HTTPServer(("0.0.0.0", {a}), handler)\n    server.serve_forever()\n')),
    ("listen on the loopback address, so only this machine can connect", "bind to the local address and nothing wider", "stay on the loopback address"),
    ("listen on every address, so any network can connect", "bind to all interfaces and open the port to the world", "accept connections from anywhere"))

SCENARIOS = (HASH, SECRET, TEMPORARY, TLS, RANDOM, PERMISSION, BIND)
