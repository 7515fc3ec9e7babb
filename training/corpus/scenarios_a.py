"""Coding scenarios, first half: injection, evaluation, deserialisation, archives, templates.

A scenario is one weakness class with several ways to write the function. `{f}` is the function name,
`{a}` its data parameter, `{n}` the noun of the name in words, `{t}` a table or file stem. The last two
`tasks` and the last `why_*` of a scenario are kept for the held-out prompts.
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
    verbs: tuple[str, ...]
    tasks: tuple[str, ...]
    variants: tuple[Variant, ...]
    safe: tuple[str, ...]  # what the secure answer does, after "I"
    hole: tuple[str, ...]  # what the insecure answer does, after "I"


SQL = Scenario(
    "sql injection", "CWE-89", ("find", "get", "load", "fetch", "lookup", "select"),
    ("look up a {n} in the database by its {b}", "return the {n} rows with a given {b}",
     "query the {n} table by {b}", "read one {n} from SQLite with a matching {b}",
     "fetch every {n} whose {b} matches", "search the database for a {n} by {b}",
     "find which {n} has this {b} in the database", "get the {n} records that match a {b}"),
    (Variant("connection, {a}",
             'def {f}(connection, {a}):\n    query = "SELECT * FROM {t} WHERE {b} = ?"\n    return connection.execute(query, ({a},)).fetchall()\n',
             'def {f}(connection, {a}):\n    query = f"SELECT * FROM {t} WHERE {b} = \'{{{a}}}\'"\n    return connection.execute(query).fetchall()\n'),
     Variant("cursor, {a}",
             'def {f}(cursor, {a}):\n    cursor.execute("SELECT id, name FROM {t} WHERE {b} = ?", ({a},))\n    return cursor.fetchone()\n',
             'def {f}(cursor, {a}):\n    cursor.execute("SELECT id, name FROM {t} WHERE {b} = \'%s\'" % {a})\n    return cursor.fetchone()\n'),
     Variant("database, {a}",
             'import sqlite3\n\ndef {f}(database, {a}):\n    with sqlite3.connect(database) as connection:\n        rows = connection.execute("SELECT * FROM {t} WHERE {b} = ?", ({a},))\n        return rows.fetchall()\n',
             'import sqlite3\n\ndef {f}(database, {a}):\n    with sqlite3.connect(database) as connection:\n        rows = connection.execute("SELECT * FROM {t} WHERE {b} = \'" + {a} + "\'")\n        return rows.fetchall()\n')),
    ("pass the {b} as a query parameter, so it can never change the query",
     "bind the {b} with a placeholder instead of pasting it into the text",
     "let the driver quote the {b} with a placeholder"),
    ("paste the {b} straight into the query text, so anyone can inject SQL",
     "build the query from strings and leave it open to SQL injection",
     "put the raw {b} inside the query and leave a hole for injection"))

COMMAND = Scenario(
    "command injection", "CWE-78", ("run", "call", "start", "launch", "exec", "trigger"),
    ("run the {t} tool on a {n} {b}", "call the {t} program with the {b} of a {n}",
     "start {t} for a {n} and return its output", "execute the {t} command with one {b}",
     "pass a {n} {b} to the {t} command", "get the output of {t} for a {n}",
     "invoke {t} on the {b} of one {n}", "use the {t} program on a given {n} {b}"),
    (Variant("{a}",
             'import subprocess\n\ndef {f}({a}):\n    result = subprocess.run(["{t}", {a}], capture_output=True, check=True)\n    return result.stdout\n',
             'import subprocess\n\ndef {f}({a}):\n    result = subprocess.run(f"{t} {{{a}}}", shell=True, capture_output=True)\n    return result.stdout\n'),
     Variant("{a}, timeout",
             'import subprocess\n\ndef {f}({a}, timeout):\n    command = ["{t}", "--", {a}]\n    return subprocess.check_output(command, timeout=timeout)\n',
             'import subprocess\n\ndef {f}({a}, timeout):\n    command = "{t} " + {a}\n    return subprocess.check_output(command, shell=True, timeout=timeout)\n'),
     Variant("{a}, folder",
             'import subprocess\n\ndef {f}({a}, folder):\n    done = subprocess.run(["{t}", {a}], cwd=folder, check=False)\n    return done.returncode\n',
             'import os\n\ndef {f}({a}, folder):\n    os.chdir(folder)\n    return os.system("{t} " + {a})\n')),
    ("pass the arguments as a list, so no shell reads the {b}",
     "start the program without a shell, with the {b} as one argument",
     "keep the {b} away from any shell"),
    ("hand the {b} to a shell, so anyone can add a command of their own",
     "join the {b} to a shell command and leave it open to injection",
     "let the shell read the {b} as part of the command"))

EVAL = Scenario(
    "code evaluation", "CWE-95", ("parse", "read", "evaluate", "convert", "decode", "compute"),
    ("turn the {b} of a {n} from text into a Python value", "parse a {n} {b} written as a Python literal",
     "read the {b} of a {n} from its text form", "convert the text of a {n} {b} to a value",
     "get the value that the {b} text of a {n} stands for", "interpret the {b} field of a {n}",
     "change a {n} {b} from a string into a list or a number", "make a Python value of a {n} {b}"),
    (Variant("{a}",
             'import ast\n\ndef {f}({a}):\n    return ast.literal_eval({a})\n',
             'def {f}({a}):\n    return eval({a})\n'),
     Variant("{a}, default",
             'import ast\n\ndef {f}({a}, default):\n    try:\n        return ast.literal_eval({a})\n    except (ValueError, SyntaxError):\n        return default\n',
             'def {f}({a}, default):\n    try:\n        return eval({a})\n    except (ValueError, SyntaxError):\n        return default\n'),
     Variant("lines, {a}",
             'import ast\n\ndef {f}(lines, {a}):\n    values = [ast.literal_eval(line) for line in lines]\n    values.append(ast.literal_eval({a}))\n    return values\n',
             'def {f}(lines, {a}):\n    values = [eval(line) for line in lines]\n    values.append(eval({a}))\n    return values\n')),
    ("read the {b} with literal_eval, which accepts literals only and runs nothing",
     "accept plain literals only, so the {b} cannot run code",
     "use a parser for literals that never runs the {b}"),
    ("call eval on the {b}, so any code inside it runs",
     "evaluate the raw {b} and let it run whatever it holds",
     "run the {b} as code without any check"))

PICKLE = Scenario(
    "unsafe deserialisation", "CWE-502", ("restore", "unpack", "load", "decode", "import", "revive"),
    ("restore a saved {n} from its bytes", "load the {b} of a {n} that a client sent",
     "decode a {n} that was stored in the cache", "read a {n} back from a file of the user",
     "unpack the stored state of a {n}", "load a {n} from uploaded data",
     "bring back a {n} from the data a user gave", "open the serialised {b} of a {n}"),
    (Variant("{a}",
             'import json\n\ndef {f}({a}):\n    return json.loads({a})\n',
             'import pickle\n\ndef {f}({a}):\n    return pickle.loads({a})\n'),
     Variant("path, {a}",
             'import json\n\ndef {f}(path, {a}):\n    with open(path, encoding="utf-8") as stream:\n        return json.load(stream)[{a}]\n',
             'import pickle\n\ndef {f}(path, {a}):\n    with open(path, "rb") as stream:\n        return pickle.load(stream)[{a}]\n'),
     Variant("{a}, key",
             'import yaml\n\ndef {f}({a}, key):\n    document = yaml.safe_load({a})\n    return document.get(key)\n',
             'import yaml\n\ndef {f}({a}, key):\n    document = yaml.load({a}, Loader=yaml.Loader)\n    return document.get(key)\n')),
    ("read a plain data format, so loading the {n} cannot run code",
     "load the {b} with a safe parser that only makes plain values",
     "keep to a format that holds data and nothing else"),
    ("load the {b} with an unsafe loader, so a crafted {n} runs code",
     "trust the bytes and let the loader build any object",
     "use a loader that lets a bad {n} run code"))

ARCHIVE = Scenario(
    "path traversal", "CWE-22", ("extract", "unpack", "expand", "restore", "install", "open"),
    ("unpack a {n} archive into a folder", "extract the uploaded {n} archive",
     "restore the {b} of a {n} from a tar file", "expand a {n} bundle that a user sent",
     "install a {n} from its tar archive", "unpack the {b} archive of a {n}",
     "open a {n} tar file and write its files to a folder", "extract every file of a {n} bundle"),
    (Variant("{a}, folder",
             'import tarfile\n\ndef {f}({a}, folder):\n    with tarfile.open({a}) as archive:\n        archive.extractall(folder, filter="data")\n',
             'import tarfile\n\ndef {f}({a}, folder):\n    with tarfile.open({a}) as archive:\n        archive.extractall(folder)\n'),
     Variant("{a}, target",
             'import tarfile\n\ndef {f}({a}, target):\n    archive = tarfile.open({a}, "r:gz")\n    names = archive.getnames()\n    archive.extractall(path=target, filter="data")\n    archive.close()\n    return names\n',
             'import tarfile\n\ndef {f}({a}, target):\n    archive = tarfile.open({a}, "r:gz")\n    names = archive.getnames()\n    archive.extractall(path=target)\n    archive.close()\n    return names\n')),
    ("extract with the data filter, so no member can leave the folder",
     "refuse members that point outside the folder",
     "filter the members, so the archive stays inside its folder"),
    ("extract every member unchecked, so a path with dots leaves the folder",
     "skip the filter and let the archive write anywhere on the disk",
     "trust the paths inside the archive"))

XSS = Scenario(
    "cross-site scripting", "CWE-79", ("render", "show", "format", "display", "draw", "print"),
    ("render the {b} of a {n} as HTML", "show a {n} {b} on the page",
     "make the HTML for one {n}", "display the {b} that a visitor typed for a {n}",
     "render a page with the {b} of a {n}", "format a {n} {b} for the website",
     "put the {b} of a {n} into a web page", "write the HTML line for the {b} of a {n}"),
    (Variant("{a}",
             'from jinja2 import Environment\n\ndef {f}({a}):\n    environment = Environment(autoescape=True)\n    template = environment.from_string("<p>{{{{ value }}}}</p>")\n    return template.render(value={a})\n',
             'from jinja2 import Environment\n\ndef {f}({a}):\n    environment = Environment(autoescape=False)\n    template = environment.from_string("<p>{{{{ value }}}}</p>")\n    return template.render(value={a})\n'),
     Variant("{a}, title",
             'from markupsafe import Markup, escape\n\ndef {f}({a}, title):\n    return Markup("<h1>{{}}</h1><p>{{}}</p>").format(title, {a})\n',
             'from markupsafe import Markup, escape\n\ndef {f}({a}, title):\n    return Markup(f"<h1>{{title}}</h1><p>{{{a}}}</p>")\n'),
     Variant("request, {a}",
             'from django.utils.html import format_html\n\ndef {f}(request, {a}):\n    return format_html("<b>{{}}</b>", {a})\n',
             'from django.utils.safestring import mark_safe\n\ndef {f}(request, {a}):\n    return mark_safe("<b>" + {a} + "</b>")\n')),
    ("escape the {b}, so a script inside it stays plain text",
     "let the template escape the {b} before it reaches the page",
     "make sure that the {b} is escaped"),
    ("put the {b} on the page unescaped, so a script inside it runs",
     "switch the escaping off and leave the page open to scripts",
     "mark the raw {b} as safe although it is not"))

XML = Scenario(
    "XML external entities", "CWE-611", ("parse", "read", "import", "scan", "load", "process"),
    ("read the {b} of a {n} from an XML document", "parse the XML feed of a {n}",
     "import a {n} from XML that a partner sent", "find the {b} elements in the XML of a {n}",
     "load a {n} from its XML text", "scan the XML of a {n} for its {b}",
     "take the {b} out of a {n} XML file", "parse a {n} that arrives as XML"),
    (Variant("{a}",
             'from defusedxml import ElementTree\n\ndef {f}({a}):\n    root = ElementTree.fromstring({a})\n    return root.findtext("{b}")\n',
             'from xml.etree import ElementTree\n\ndef {f}({a}):\n    root = ElementTree.fromstring({a})\n    return root.findtext("{b}")\n'),
     Variant("{a}, tag",
             'import defusedxml.ElementTree as ET\n\ndef {f}({a}, tag):\n    tree = ET.parse({a})\n    return [node.text for node in tree.iter(tag)]\n',
             'import xml.etree.ElementTree as ET\n\ndef {f}({a}, tag):\n    tree = ET.parse({a})\n    return [node.text for node in tree.iter(tag)]\n'),
     Variant("{a}, name",
             'from defusedxml.minidom import parseString\n\ndef {f}({a}, name):\n    document = parseString({a})\n    return document.getElementsByTagName(name)\n',
             'from xml.dom.minidom import parseString\n\ndef {f}({a}, name):\n    document = parseString({a})\n    return document.getElementsByTagName(name)\n')),
    ("parse with defusedxml, which refuses external entities",
     "use a parser that does not expand entities",
     "keep entities off, so the {n} cannot read local files"),
    ("parse with the plain parser, which lets hostile entities through",
     "leave entities on, so a crafted {n} can attack the parser",
     "trust the XML and take no care of entities"))

SCENARIOS = (SQL, COMMAND, EVAL, PICKLE, ARCHIVE, XSS, XML)
