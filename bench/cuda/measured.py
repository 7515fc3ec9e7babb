"""The files of a run of bench/run-cuda.sh, and medians over what they hold."""

import json
import statistics


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


class Results:
    """The files of a run; what is not there is None or empty."""

    def __init__(self, folder):
        self.folder = folder
        self.machine = read_json(folder / "machine.json") or {}
        self.limits = read_json(folder / "limits.json")
        self.kernels = read_json(folder / "kernels.json")
        self.memory = read_json(folder / "memory.json")
        rounds = range(1, 100)
        self.attention = {
            who: [r for r in (read_json(folder / f"attention-{who}-{n}.json") for n in rounds) if r]
            for who in ("ours", "pytorch")
        }

    def engine(self, group):
        return read_json(self.folder / f"engine-{group}.json")

    def checker_runs(self, name):
        """The last line of each program and tool: what failed may have been run again."""
        path = self.folder / name
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        runs = [json.loads(line) for line in lines if line]
        return list({(run["tool"], run["program"]): run for run in runs}.values())


def words_of(order):
    op, *rest = order.split()
    return op, dict(word.split("=", 1) for word in rest)


def milliseconds(sample):
    """Of a decode step of the whole batch, or of a prompt."""
    op, words = words_of(sample["order"])
    if op == "decode":
        return 1e3 * sample["seconds"] * int(words["streams"]) / sample["tokens"]
    return 1e3 * sample["seconds"]


class Group:
    """The samples of one group of engine.py, by order and contestant."""

    def __init__(self, result):
        self.contestants = list(result["contestants"]) if result else []
        self.greetings = result["contestants"] if result else {}
        self.rounds = result["rounds"] if result else 0
        self.samples = {}
        for sample in result["samples"] if result else []:
            if "error" not in sample:
                key = (sample["order"], sample["contestant"])
                self.samples.setdefault(key, {})[sample["round"]] = milliseconds(sample)

    def orders(self):
        return list(dict.fromkeys(order for order, _ in self.samples))

    def median(self, order, contestant):
        values = self.samples.get((order, contestant))
        return statistics.median(values.values()) if values else None

    def find(self, op, contestant, **wanted):
        """The median of the order with these words, else None."""
        for order, who in self.samples:
            words = words_of(order)[1]
            if who == contestant and words_of(order)[0] == op:
                if all(words.get(key) == str(value) for key, value in wanted.items()):
                    return self.median(order, who)
        return None

    def ratio(self, order, base):
        """Median of the ratios to another (order, contestant), round by round, and its deviation."""
        rounds = self.samples.get(order, {}).keys() & self.samples.get(base, {}).keys()
        ratios = [self.samples[order][n] / self.samples[base][n] for n in sorted(rounds)]
        if not ratios:
            return None
        middle = statistics.median(ratios)
        return middle, statistics.median(abs(ratio - middle) for ratio in ratios)
