# SPDX-License-Identifier: MIT
"""contrib/prometheus: alerts, dashboard and the recipe for node_exporter, against a real mount."""

import json
import os
import re
import subprocess

import pytest
import yaml

import support
from mounting import PLAIN_BINARY
from support import REPOSITORY, checked, run
from test_metrics import SAMPLE

PLACE = REPOSITORY / "contrib/prometheus"
SCRIPT = PLACE / "latchfs-textfile"
RULES = yaml.safe_load((PLACE / "latchfs.rules.yml").read_text(encoding="utf-8"))
TESTS = yaml.safe_load((PLACE / "latchfs.test.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((PLACE / "latchfs.dashboard.json").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$mount": ".*"}


def dashboard_queries():
    """Every query of every panel and annotation, with the variables filled in."""
    texts = [target["expr"] for panel in PANELS for target in panel["targets"]]
    texts += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    for variable, value in VARIABLES.items():
        texts = [text.replace(variable, value) for text in texts]
    return texts


def read_textfile(directory):
    """What the script has written: {name: [(labels, value)]}, and the kinds of metrics."""
    text = (directory / "latchfs.prom").read_text(encoding="utf-8")
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = SAMPLE.match(line).groups()
            pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""))
            found.setdefault(name, []).append((pairs, float(value)))
    return found, dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))


@pytest.fixture
def collected(lab):
    """A directory with what the script says of one mount, and what that is."""
    mount = lab.mount(binary=PLAIN_BINARY)
    lab.agent().take(mount / "x")
    directory = lab.base / "collector"
    directory.mkdir()
    checked(SCRIPT, directory, mount.path)
    return read_textfile(directory)


# Alerts.


def test_alerts():
    """promtool accepts the rules, and each alert comes when it should and not before."""
    checked("promtool", "check", "rules", PLACE / "latchfs.rules.yml")
    assert "SUCCESS" in checked("promtool", "test", "rules", PLACE / "latchfs.test.yml")


def test_each_alert_is_tested():
    """There is a test in which it comes, one in which it does not, and one of a sound mount."""
    outcomes = {}
    for test in TESTS["tests"]:
        for one in test["alert_rule_test"]:
            outcomes.setdefault(one["alertname"], set()).add(bool(one.get("exp_alerts")))
    assert outcomes == {rule["alert"]: {True, False} for rule in ALERTS}
    sound = {one["alertname"] for one in TESTS["tests"][0]["alert_rule_test"]}
    assert sound == {rule["alert"] for rule in ALERTS}


# node_exporter's own, of the file.
NOT_OURS = "node_textfile_mtime_seconds"


def selectors(query):
    """The metrics of a query, with what is said of their labels."""
    for name, inside in re.findall(r"(latchfs_\w+)(?:\{([^}]*)\})?", query):
        yield name, re.findall(r'(\w+)(=~|=)"([^"]*)"', inside)


@pytest.mark.parametrize("where", ["rules", "tests", "dashboard"])
def test_only_what_there_is(collected, where):
    """Rules, their tests and the dashboard name metrics, labels and values that exist."""
    found, _ = collected
    queries = {
        "rules": [rule["expr"] for rule in ALERTS],
        "tests": [one["series"] for test in TESTS["tests"] for one in test["input_series"]],
        "dashboard": dashboard_queries(),
    }[where]
    for query in queries:
        used = list(selectors(query))
        assert used or NOT_OURS in query, query
        for name, labels in used:
            assert name in found, f"{name} in {query}"
            for label, how, value in labels:
                values = {pairs.get(label) for pairs, _ in found[name]}
                if label == "instance":  # is added by Prometheus
                    continue
                assert values != {None}, f"{label} in {query}"
                if how == "=" and label in ("cause", "lane", "state", "mode", "error", "result"):
                    assert value in values, f"{label}={value} in {query}"


def test_labels_that_are_summed_by(collected):
    """`sum by` names labels that there are."""
    found, _ = collected
    there = {label for values in found.values() for pairs, _ in values for label in pairs}
    for query in [rule["expr"] for rule in ALERTS] + dashboard_queries():
        for labels in re.findall(r"\bby \(([^)]*)\)", query):
            assert set(labels.split(", ")) <= there | {"instance"}, query


# The dashboard.


def test_each_query_has_an_answer(lab, collected):
    """Every query of the dashboard, evaluated over what a real mount says, gives values."""
    found, kinds = collected
    series = []
    for name, values in found.items():
        base = re.sub("_(bucket|sum|count)$", "", name)
        grows = kinds.get(name, kinds.get(base)) != "gauge"
        for pairs, value in values:
            labels = ",".join(f'{label}="{text}"' for label, text in pairs.items())
            series.append({"series": f'{name}{{instance="one",{labels}}}',
                           "values": f"{value:g}+{1 if grows else 0}x30"})
    queries = dashboard_queries()
    expected_empty = [{"expr": query, "eval_time": "20m", "exp_samples": []} for query in queries]
    test = lab.scratch(json.dumps({"tests": [
        {"interval": "1m", "input_series": series, "promql_expr_test": expected_empty}]}))
    done = run("promtool", "test", "rules", test)
    # That there is nothing is wrong for each of them: promtool says what there is instead.
    answers = re.findall(r'expr: (".*"), time: 20m,\s+exp: nil\s+got: \S',
                         done.stdout + done.stderr)
    answered = {json.loads(query) for query in answers}
    starts = {query for query in queries if query.startswith("changes(")}  # nothing was started
    assert answered | starts == set(queries), done.stdout[-3000:]


def test_dashboard_is_whole():
    """Panels have titles, explanations and places that do not overlap, and numbers of their own."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["title"] and panel["description"] and panel["targets"]
        assert panel["datasource"]["uid"] == "${datasource}"
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))
    assert used == variables


# The recipe for node_exporter.


def promtool_check(path):
    """`promtool check metrics` of a file."""
    with open(path, "rb") as text:
        done = subprocess.run(["promtool", "check", "metrics"], stdin=text, capture_output=True,
                              text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_textfile(lab):
    """All mounts in one file, each with its label; what is not there is said to be down."""
    mounts = [lab.mount(name=name) for name in ("plain", "two words", 'q"uo\\te')]
    directory, missing = lab.base / "collector", lab.base / "missing"
    directory.mkdir()
    missing.mkdir()
    lab.agent().take(mounts[1] / "x")
    checked(SCRIPT, directory, missing, *(mount.path for mount in mounts))
    promtool_check(directory / "latchfs.prom")
    found, _ = read_textfile(directory)
    here = {json.dumps(str(mount.path))[1:-1] for mount in mounts}

    def values(name, **labels):
        return {pairs["mount"]: value for pairs, value in found[name]
                if labels.items() <= pairs.items()}

    assert values("latchfs_up") == {**dict.fromkeys(here, 1), str(missing): 0}
    held = values("latchfs_locks", state="held")
    assert sum(held.values()) == 1 and held[str(mounts[1].path)] == 1
    assert set(held) == here
    assert os.listdir(directory) == ["latchfs.prom"]
    assert os.stat(directory / "latchfs.prom").st_mode & 0o777 == 0o644


# The mounts are listed in the namespace of its own: other tests mount and unmount all the time.
ALONE = """
import os, subprocess, sys
sys.path.insert(0, os.environ["TESTS"])
import support
split = sys.argv.index("--")
for place, (_, kind, _) in support.mounts().items():
    if kind == "fuse.latchfs" and place not in sys.argv[1:split]:
        subprocess.run(["umount", "-l", place], check=True)
os.execv(sys.argv[split + 1], sys.argv[split + 1:])
"""


def test_textfile_of_all_that_there_is(lab):
    """Without names it finds the mounts; others than ours are out of its sight here."""
    ours = {str(lab.mount(name=name).path) for name in ("plain", "two words", "back\\slash")}
    directory = lab.base / "collector"
    directory.mkdir()
    checked("unshare", "-m", "--propagation", "private", "/usr/bin/python3", "-c", ALONE, *ours,
            "--", SCRIPT, directory, env={**os.environ, "TESTS": str(support.HERE)})
    found, _ = read_textfile(directory)
    escaped = {json.dumps(place)[1:-1] for place in ours}
    assert {pairs["mount"]: value for pairs, value in found["latchfs_up"]} == dict.fromkeys(
        escaped, 1)


def test_textfile_of_a_daemon_that_hangs(lab):
    """A daemon that does not answer is down, and keeps nobody from reading the others."""
    mounts = [lab.mount(name=name) for name in ("good", "bad")]
    directory = lab.base / "collector"
    directory.mkdir()
    mounts[1].pause()
    checked(SCRIPT, directory, *(mount.path for mount in mounts))
    found, _ = read_textfile(directory)
    up = {pairs["mount"]: value for pairs, value in found["latchfs_up"]}
    assert up[str(mounts[0].path)] == 1 and up[str(mounts[1].path)] == 0
    assert str(mounts[1].path) not in {pairs["mount"] for pairs, _ in found["latchfs_handles"]}
    mounts[1].resume()


def test_textfile_is_used_wrongly(lab):
    """Without a directory it says how it is used."""
    for words in ([], [lab.base / "none"]):
        done = run(SCRIPT, *words)
        assert done.returncode == 2 and "usage" in done.stderr
