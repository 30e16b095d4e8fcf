"""OpenMetrics 1.0 text, read strictly: what the standard forbids fails."""

import re

NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(r"(%s)(?:\{(%s(?:,%s)*)\})? (-?[0-9]+)" % (NAME, LABEL, LABEL))
KINDS = ("TYPE", "UNIT", "HELP")
ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


def _labels(text):
    pairs = re.findall(LABEL, text or "")
    labels = {name: re.sub(r"\\.", lambda m: ESCAPES[m.group()], value) for name, value in pairs}
    assert len(labels) == len(pairs), "a label stands twice: " + text
    assert all(labels.values()), "an empty label: " + text
    return frozenset(labels.items())


class Reader:
    def __init__(self):
        self.families = {}      # name -> {"TYPE": ..., "HELP": ..., "UNIT": ...}
        self.samples = {}       # (name, labels) -> value
        self.family = None
        self.begun = False      # whether a sample of this family was there

    def metadata(self, line):
        kind, name, value = re.fullmatch(r"# (TYPE|UNIT|HELP) (%s) (.+)" % NAME, line).groups()
        if name != self.family:
            assert kind == "TYPE", "no TYPE before: " + line
            assert name not in self.families, "a family in two pieces: " + line
            self.family, self.families[name], self.begun = name, {}, False
        about = self.families[name]
        assert not self.begun, "behind samples: " + line
        assert kind not in about and KINDS.index(kind) >= len(about), "twice, or in another order: " + line
        about[kind] = value
        if kind == "TYPE":
            # those that the older text format of Prometheus's has too
            assert value in ("gauge", "counter"), line
        if kind == "UNIT":
            assert name.endswith("_" + value), line

    def sample(self, line):
        found = SAMPLE.fullmatch(line)
        assert found, "no sample: " + line
        name, labels, value = found.group(1), found.group(2), int(found.groups()[-1])
        about = self.families[self.family]
        counter = about["TYPE"] == "counter"
        assert name == self.family + ("_total" if counter else ""), "of no family: " + line
        assert about.get("HELP"), "no HELP: " + line
        assert value >= 0 or not counter, line
        for unit in ("seconds", "bytes"):
            assert about.get("UNIT") == unit or not self.family.endswith("_" + unit), line
        key = (name, _labels(labels))
        assert key not in self.samples, "twice: " + line
        self.samples[key] = value
        self.begun = True


def parse(text):
    """Families and samples: name -> metadata, (name, frozenset of labels) -> value."""
    assert text.endswith("\n# EOF\n") and "\r" not in text
    reader = Reader()
    for line in text[:-len("# EOF\n")].split("\n")[:-1]:
        if line.startswith("#"):
            reader.metadata(line)
        else:
            reader.sample(line)
    names = set(reader.families)
    assert not [n for n in names if n + "_total" in names], "names that clash"
    return reader.families, reader.samples


def of(samples, name, **labels):
    """The one value of this name that has these labels, among others."""
    [value] = [value for (one, have), value in samples.items()
               if one == name and labels.items() <= dict(have).items()]
    return value
