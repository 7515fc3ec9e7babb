import html

import jinja2
from django.utils.html import format_html
from django.utils.safestring import mark_safe
from jinja2 import Environment
from markupsafe import Markup


def f(heading, a):
    # ruleid: cross-site-scripting
    one = Environment(autoescape=False).from_string("<p>{{ value }}</p>")
    # ruleid: cross-site-scripting
    two = mark_safe(a)
    # ruleid: cross-site-scripting
    three = Markup(heading + a)
    # ruleid: cross-site-scripting
    four = "<p>" + a
    # ruleid: cross-site-scripting
    five = f"<h1>{a}</h1>"
    # ruleid: cross-site-scripting
    six = "<b>%s</b>" % a
    # ruleid: cross-site-scripting
    seven = "<b>{}</b>".format(a)
    # ruleid: cross-site-scripting
    return one, two, three, four, five, six, seven, jinja2.Environment()


def g(heading, a):
    # ok: cross-site-scripting
    one = Environment(autoescape=True).from_string("<p>{{ value }}</p>")
    # ok: cross-site-scripting
    two = Markup("<h1>%s</h1>") % heading + a
    # ok: cross-site-scripting
    three = format_html("<b>{}</b>", a)
    # ok: cross-site-scripting
    four = "<p>" + html.escape(a) + "</p>"
    # ok: cross-site-scripting
    five = f"<h1>{html.escape(a)}</h1>"
    # ok: cross-site-scripting
    six = mark_safe("<br>")
    # ok: cross-site-scripting
    seven = mark_safe(html.escape(a))
    # ok: cross-site-scripting
    return one, two, three, four, five, six, seven, "1 < 2" + a
