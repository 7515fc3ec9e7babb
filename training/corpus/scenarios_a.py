"""Coding scenarios, first half: injection, evaluation, deserialisation, archives, templates, XML.

A scenario is one weakness class with several ways to write the function. A task is worded from three lists, `acts`, `things` and
`tails`, so that every scenario has hundreds of wordings made of the same words. `{f}` is the function name, `{a}` its data
parameter, `{n}` the noun of the name, `{b}` the field, `{t}` a table or a program. The parameters of a stub name its variant.
"""
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to write the function: its parameters, the secure and the insecure answer."""

    params: str
    secure: str
    insecure: str


@dataclass(frozen=True)
class Scenario:
    name: str
    cwe: str
    verbs: tuple[str, ...]  # of function names; no two scenarios share one
    acts: tuple[str, ...]
    things: tuple[str, ...]
    tails: tuple[str, ...]
    variants: tuple[Variant, ...]
    safe: tuple[str, ...]  # what the secure answer does, after "I"
    hole: tuple[str, ...]  # what the insecure answer does, after "I"


SQL = Scenario(
    "sql injection", "CWE-89", ("find", "select", "lookup", "search", "query"),
    ("look up", "find", "search for", "select", "get", "query"),
    ("the {n} in the database", "the {n} row in SQLite", "every {n} in the SQL table", "the {n} record in the database",
     "all rows of the {n} table", "one {n} of the SQL database"),
    ("by its {b}", "with a given {b}", "whose {b} matches", "for one {b}", "that has this {b}", "by {b}"),
    (Variant("connection, {a}",
             'def {f}(connection, {a}):\n    query = "SELECT * FROM {t} WHERE {b} = ?"\n    return connection.execute(query, ({a},)).fetchall()\n',
             'def {f}(connection, {a}):\n    query = "SELECT * FROM {t} WHERE {b} = " + {a}\n    return connection.execute(query).fetchall()\n'),
     Variant("cursor, {a}",
             'def {f}(cursor, {a}):\n    cursor.execute("SELECT id FROM {t} WHERE {b} = ?", ({a},))\n    return cursor.fetchone()\n',
             'def {f}(cursor, {a}):\n    cursor.execute("SELECT id FROM {t} WHERE {b} = \'%s\'" % {a})\n    return cursor.fetchone()\n'),
     Variant("database, {a}",
             'import sqlite3\n\ndef {f}(database, {a}):\n    with sqlite3.connect(database) as connection:\n        return connection.execute("SELECT * FROM {t} WHERE {b} = ?", ({a},)).fetchall()\n',
             'import sqlite3\n\ndef {f}(database, {a}):\n    with sqlite3.connect(database) as connection:\n        return connection.execute("SELECT * FROM {t} WHERE {b} = " + {a}).fetchall()\n')),
    ("bind the {b} with a placeholder, so it cannot change the query", "pass the {b} as a query parameter and never paste it",
     "let the database driver quote the {b}"),
    ("paste the {b} into the query text, so anyone can inject SQL", "build the query from strings and leave it open to SQL injection",
     "put the raw {b} inside the query"))

COMMAND = Scenario(
    "command injection", "CWE-78", ("run", "start", "launch", "invoke", "execute"),
    ("run", "start", "execute", "launch", "invoke", "use"),
    ("the {t} program on the {n} {b}", "the {t} tool with the {n} {b}", "the {t} command for the {b} of a {n}", "the command {t} on one {n} {b}",
     "the system tool {t} with a {n} {b}", "the shell program {t} for a {n} {b}"),
    ("and return the result", "and wait for it", "as a process", "as a child process", "on this machine", "for the caller"),
    (Variant("{a}",
             'import subprocess\n\ndef {f}({a}):\n    done = subprocess.run(["{t}", {a}], capture_output=True)\n    return done.stdout\n',
             'import subprocess\n\ndef {f}({a}):\n    done = subprocess.run("{t} " + {a}, shell=True, capture_output=True)\n    return done.stdout\n'),
     Variant("{a}, timeout",
             'import subprocess\n\ndef {f}({a}, timeout):\n    return subprocess.check_output(["{t}", {a}], timeout=timeout)\n',
             'import subprocess\n\ndef {f}({a}, timeout):\n    return subprocess.check_output("{t} " + {a}, shell=True, timeout=timeout)\n'),
     Variant("{a}, folder",
             'import subprocess\n\ndef {f}({a}, folder):\n    return subprocess.run(["{t}", {a}], cwd=folder).returncode\n',
             'import subprocess\n\ndef {f}({a}, folder):\n    return subprocess.run("{t} " + {a}, shell=True, cwd=folder).returncode\n')),
    ("pass the arguments as a list, so no shell reads the {b}", "start the program without a shell", "keep the {b} away from any shell"),
    ("hand the {b} to a shell, so anyone can add a command", "join the {b} to a shell command and leave it open to injection",
     "let the shell read the {b} as part of the command"))

EVAL = Scenario(
    "code evaluation", "CWE-95", ("evaluate", "compute", "convert", "interpret", "literal"),
    ("turn", "convert", "change", "make", "transform", "interpret"),
    ("the {n} {b} into a Python value", "the text of the {n} {b} into a Python value", "the {b} string of a {n} into a list or number",
     "a {n} {b} from text into a Python object", "the written {b} of a {n} into a value", "one {n} {b} as a Python literal"),
    ("right away", "for the caller", "and return it", "as written by the user", "when it is needed", "in one step"),
    (Variant("{a}",
             'import ast\n\ndef {f}({a}):\n    return ast.literal_eval({a})\n',
             'def {f}({a}):\n    return eval({a})\n'),
     Variant("{a}, default",
             'import ast\n\ndef {f}({a}, default):\n    try:\n        return ast.literal_eval({a})\n    except ValueError:\n        return default\n',
             'def {f}({a}, default):\n    try:\n        return eval({a})\n    except ValueError:\n        return default\n'),
     Variant("values, {a}",
             'import ast\n\ndef {f}(values, {a}):\n    values.append(ast.literal_eval({a}))\n    return values\n',
             'def {f}(values, {a}):\n    values.append(eval({a}))\n    return values\n')),
    ("read the {b} with literal_eval, which runs nothing", "accept plain literals only, so the {b} cannot run code",
     "use the literal parser, which never runs the {b}"),
    ("call eval on the {b}, so any code inside it runs", "evaluate the raw {b} and let it run", "run the {b} as code without any check"))

PICKLE = Scenario(
    "unsafe deserialisation", "CWE-502", ("restore", "revive", "deserialize", "rebuild", "decode"),
    ("restore", "bring back", "load", "decode", "rebuild", "read back"),
    ("the saved {n} from its bytes", "the stored state of a {n}", "a serialised {n}", "the {n} object from the cache",
     "the saved {b} of a {n}", "the serialised {b} of a {n}"),
    ("once more", "that a client sent", "after a restart", "that a user gave", "as an object", "from an earlier run"),
    (Variant("{a}",
             'import json\n\ndef {f}({a}):\n    return json.loads({a})\n',
             'import pickle\n\ndef {f}({a}):\n    return pickle.loads({a})\n'),
     Variant("stream, {a}",
             'import json\n\ndef {f}(stream, {a}):\n    return json.load(stream)[{a}]\n',
             'import pickle\n\ndef {f}(stream, {a}):\n    return pickle.load(stream)[{a}]\n'),
     Variant("{a}, key",
             'import yaml\n\ndef {f}({a}, key):\n    document = yaml.safe_load({a})\n    return document.get(key)\n',
             'import yaml\n\ndef {f}({a}, key):\n    document = yaml.load({a}, Loader=yaml.Loader)\n    return document.get(key)\n')),
    ("read a plain data format, so loading cannot run code", "load the {b} with a parser that makes plain values only",
     "keep to a format that holds data and nothing else"),
    ("load the {b} with an unsafe loader, so a bad {n} runs code", "trust the bytes and let the loader build any object",
     "use a loader that lets a bad {n} run code"))

ARCHIVE = Scenario(
    "path traversal", "CWE-22", ("extract", "unpack", "expand", "untar", "install"),
    ("unpack", "extract", "expand", "open", "install", "write out"),
    ("the {n} archive", "the uploaded {n} archive", "the {n} tar file", "the tar archive of a {n}", "the {b} archive of a {n}", "every file of a {n} archive"),
    ("into a folder", "to the disk", "that a user sent", "in its place", "for later use", "from the upload"),
    (Variant("{a}, folder",
             'import tarfile\n\ndef {f}({a}, folder):\n    with tarfile.open({a}) as archive:\n        archive.extractall(folder, filter="data")\n',
             'import tarfile\n\ndef {f}({a}, folder):\n    with tarfile.open({a}) as archive:\n        archive.extractall(folder)\n'),
     Variant("{a}, target",
             'import tarfile\n\ndef {f}({a}, target):\n    archive = tarfile.open({a}, "r:gz")\n    archive.extractall(target, filter="data")\n    return archive.getnames()\n',
             'import tarfile\n\ndef {f}({a}, target):\n    archive = tarfile.open({a}, "r:gz")\n    archive.extractall(target)\n    return archive.getnames()\n')),
    ("extract with the data filter, so no member can leave the folder", "refuse members that point outside the folder",
     "filter the members, so the archive stays inside its folder"),
    ("extract every member unchecked, so a path can leave the folder", "skip the filter and let the archive write anywhere",
     "trust the paths inside the archive"))

XSS = Scenario(
    "cross-site scripting", "CWE-79", ("render", "show", "display", "draw", "present"),
    ("render", "show", "display", "put", "draw", "write"),
    ("the {b} of a {n} as HTML", "the {n} {b} on the web page", "the HTML for one {n} {b}", "a {n} {b} in an HTML page", "the {n} {b} for the website",
     "the {b} of a {n} on the page"),
    ("for the reader", "for a visitor", "of the site", "in the browser", "as the visitor typed it", "with its markup"),
    (Variant("{a}",
             'from jinja2 import Environment\n\ndef {f}({a}):\n    template = Environment(autoescape=True).from_string("<p>{{{{ value }}}}</p>")\n    return template.render(value={a})\n',
             'from jinja2 import Environment\n\ndef {f}({a}):\n    template = Environment(autoescape=False).from_string("<p>{{{{ value }}}}</p>")\n    return template.render(value={a})\n'),
     Variant("heading, {a}",
             'from markupsafe import Markup\n\ndef {f}(heading, {a}):\n    return Markup("<h1>%s</h1>") % heading + {a}\n',
             'from markupsafe import Markup\n\ndef {f}(heading, {a}):\n    return Markup("<h1>" + heading + "</h1>" + {a})\n'),
     Variant("request, {a}",
             'from django.utils.html import format_html\n\ndef {f}(request, {a}):\n    return format_html("<b>{{}}</b>", {a})\n',
             'from django.utils.safestring import mark_safe\n\ndef {f}(request, {a}):\n    return mark_safe("<b>" + {a} + "</b>")\n')),
    ("escape the {b}, so a script inside it stays plain text", "let the template escape the {b} for the page", "make sure that the {b} is escaped"),
    ("put the {b} on the page unescaped, so a script inside it runs", "switch the escaping off and leave the page open to scripts",
     "mark the raw {b} as safe although it is not"))

XML = Scenario(
    "XML external entities", "CWE-611", ("parse", "scan", "import", "process", "ingest"),
    ("parse", "read", "scan", "import", "process", "take in"),
    ("the XML of a {n}", "the XML feed with the {n} {b}", "a {n} from its XML text", "the {b} in the XML of a {n}", "the XML document of a {n}",
     "the XML elements of a {n} {b}"),
    ("in one pass", "from a partner", "that arrived today", "from the feed", "for the import", "sent by another company"),
    (Variant("{a}",
             'from defusedxml import ElementTree\n\ndef {f}({a}):\n    root = ElementTree.fromstring({a})\n    return root.findtext("{b}")\n',
             'from xml.etree import ElementTree\n\ndef {f}({a}):\n    root = ElementTree.fromstring({a})\n    return root.findtext("{b}")\n'),
     Variant("{a}, tag",
             'import defusedxml.ElementTree as ET\n\ndef {f}({a}, tag):\n    return [node.text for node in ET.parse({a}).iter(tag)]\n',
             'import xml.etree.ElementTree as ET\n\ndef {f}({a}, tag):\n    return [node.text for node in ET.parse({a}).iter(tag)]\n'),
     Variant("{a}, element",
             'from defusedxml.minidom import parseString\n\ndef {f}({a}, element):\n    return parseString({a}).getElementsByTagName(element)\n',
             'from xml.dom.minidom import parseString\n\ndef {f}({a}, element):\n    return parseString({a}).getElementsByTagName(element)\n')),
    ("parse with defusedxml, which refuses external entities", "choose a parser that does not expand entities",
     "keep XML entities off, so the {n} cannot read local files"),
    ("parse with the plain parser, which lets hostile entities through", "leave entities on, so a bad {n} can attack the parser",
     "trust the XML and take no care of entities"))

SCENARIOS = (SQL, COMMAND, EVAL, PICKLE, ARCHIVE, XSS, XML)
