"""How figures are written in a page of results."""

MISSING = "not measured"


def number(value, unit="", digits=2):
    return MISSING if value is None else f"{value:.{digits}f}{unit}"


def percent(share):
    return MISSING if share is None else f"{100 * share:.0f}%"


def change(ratio):
    """Of (ratio, deviation) as a change in percent."""
    if ratio is None:
        return MISSING
    return f"{100 * (ratio[0] - 1):+.2f}% ± {100 * ratio[1]:.2f}"


def batch_name(words):
    streams = int(words["streams"])
    return f"{streams} stream{'s' * (streams > 1)}, context {words['context']}"


def verdict(met):
    return "" if met is None else "met" if met else "**missed**"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])
