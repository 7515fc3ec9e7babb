import xml.etree.ElementTree as ET
from xml.dom.minidom import parseString

import defusedxml.ElementTree as safe
import lxml.etree
from defusedxml.minidom import parseString as safe_parse


def f(a, tag):
    # ruleid: xml-external-entities
    one = [node.text for node in ET.parse(a).iter(tag)]
    # ruleid: xml-external-entities
    two = ET.fromstring(a)
    # ruleid: xml-external-entities
    three = parseString(a).getElementsByTagName(tag)
    # ruleid: xml-external-entities
    return one, two, three, lxml.etree.parse(a)


def g(a, tag):
    # ok: xml-external-entities
    one = safe.parse(a).iter(tag)
    # ok: xml-external-entities
    two = safe_parse(a)
    # ok: xml-external-entities
    return one, two, ET.Element(tag)
