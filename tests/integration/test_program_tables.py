# SPDX-License-Identifier: MIT
"""The tables of programs in README and the manual: they agree, and each row has tests.

What is said of a program there is said by the tests named here, so a new row needs a line below.
"""

import os
import re
import sys
from dataclasses import dataclass

import pytest

from support import HERE, REPOSITORY, checked
from test_job_programs import ALONE, MANUAL

README = REPOSITORY / "README.md"


@dataclass
class Program:
    """What README calls it, a test that others are kept out, and one in which it is killed.

    The tests are separated by blanks that stand before `test_`.
    """

    readme: str
    excludes: str
    killed: str

    def tests(self):
        """The names of all its tests."""
        return [test for tests in (self.excludes, self.killed) for test in each(tests)]


def each(tests):
    """The names of several tests."""
    return [test for test in re.split(r" (?=test_)", tests) if test]


def twin(readme, name):
    """One of test_programs.py."""
    return Program(readme, f"test_programs.py::test_excludes_its_twin_on_the_other_mount[{name}]",
                   f"test_programs.py::test_killed_program_leaves_no_lock[{name}]")


def jobs(*tests):
    """Tests of test_job_programs.py."""
    return " ".join(f"test_job_programs.py::test_{test}" for test in tests)


def cron(readme, *lines):
    """What test_job_programs.py runs as cron does, and kills."""
    tests = jobs(*(f"crontab_line[{line}]" for line in lines))
    return Program(readme, tests, tests)


# As the manual calls them.
PROGRAMS = {
    "flock": twin("`flock` (util-linux)", "flock"),
    "flock in a crontab": cron("also in a crontab", "flock -n {lock} {job}"),
    "flock with chronic": cron("with `chronic` (moreutils)", "flock -n {lock} chronic {job}",
                               "chronic flock -n -E 0 {lock} {job}"),
    "flock in a systemd unit": Program("or in a systemd unit", jobs("unit_of_the_manual"),
                                       jobs("unit_of_the_manual")),
    "setlock": twin("`setlock` (daemontools)", "setlock"),
    "chpst -L": twin("`chpst -L`", "chpst"),
    "chpst -l": Program(
        "`chpst -l` (runit)",
        "test_programs.py::test_waits_for_its_twin_on_the_other_mount[chpst]",
        "test_programs.py::test_killed_program_lets_the_waiting_one_in[chpst]"),
    "daemonize -l": Program("`daemonize -l`", jobs("daemonize"), jobs("daemonize")),
    "with-lock-ex": twin("`with-lock-ex` (chiark-utils)", "with-lock-ex"),
    "lckdo": twin("`lckdo` (moreutils)", "lckdo"),
    "runlock": twin("`runlock` (cronutils)", "runlock"),
    "exec 9>FILE with set -C": Program(
        "shell with `set -C` and a descriptor: `exec 9>/locks/x`",
        "test_lockfiles.py::test_bash_noclobber",
        jobs("noclobber_with_a_descriptor[bash]", "noclobber_with_a_descriptor[dash]")),
    "echo >FILE with set -C": Program(
        "shell with `set -C; echo $$ >/locks/x`", jobs("noclobber_that_goes_with_its_shell[bash]"),
        jobs("noclobber_that_goes_with_its_shell[dash]",
             "lock_that_outlives_its_script[remove-noclobber]")),
    "( work ) 9>FILE": Program(
        "shell with `( work ) 9>/locks/x` alone",
        "test_open_lock.py::test_redirections_wait_in_order[dash]",
        "test_open_lock.py::test_killed_holder_passes_it_on"),
    "mkdir DIR": Program(
        "`mkdir` as a lock", "test_mkdir_locks.py::test_shell_loops",
        "test_mkdir_locks.py::test_killed_shell_leaves_its_directory"
        " test_leased_directories.py::test_killed_daemon"),
    'ln -s "$HOST:$$" FILE': Program(
        '`ln -s "$HOST:$$" lock`', "test_symlinks.py::test_shell",
        jobs("lock_that_outlives_its_script[remove-symlink]")),
    "dotlockfile": Program(
        "`dotlockfile` (liblockfile)",
        "test_links.py::test_dotlockfile test_links.py::test_dotlockfile_with_a_process_number",
        jobs("lock_that_outlives_its_script[remove-dotlockfile]",
             "dotlockfile_of_a_killed_script")),
    "lockfile (procmail)": Program(
        "`lockfile` (procmail)", "test_links.py::test_procmail_lockfile",
        jobs("lock_that_outlives_its_script[remove-procmail]")),
    "Perl flock": twin("Perl `flock`", "perl"),
    "File::Flock": twin("File::Flock", "File::Flock"),
    "Python fcntl.flock": Program(
        "Python `fcntl.flock`", "test_programs.py::test_python_fcntl_module[flock]",
        "test_programs.py::test_python_fcntl_module[flock]"),
    "Python fcntl.lockf": Program(
        "`fcntl.lockf`", "test_programs.py::test_python_fcntl_module[lockf]",
        "test_programs.py::test_python_fcntl_module[lockf]"),
    "Python filelock": twin("Python filelock", "filelock"),
    "Python SoftFileLock": twin("also its SoftFileLock", "SoftFileLock"),
    "Python portalocker": twin("Python portalocker", "portalocker"),
    "Python fasteners": twin("fasteners", "fasteners"),
    "Python zc.lockfile": twin("zc.lockfile", "zc.lockfile"),
    "Python SymlinkLockFile": Program(
        "Python's SymlinkLockFile", "test_symlinks.py::test_python_lockfile",
        "test_symlinks.py::test_python_lockfile"
        " test_symlinks.py::test_python_lockfile_that_outlives_its_program"),
    "Ruby flock": twin("Ruby `File#flock`", "ruby"),
    "PHP flock": twin("PHP `flock`", "php"),
    "Go syscall.Flock": twin("Go `syscall.Flock`", "go"),
    "Java FileChannel": Program(
        "Java `FileChannel.lock`, `tryLock`, shared and of ranges too",
        "test_programs.py::test_excludes_its_twin_on_the_other_mount[java]"
        " test_programs.py::test_waits_for_its_twin_on_the_other_mount[java]",
        "test_programs.py::test_killed_program_leaves_no_lock[java]"
        " test_programs.py::test_java_ranges test_programs.py::test_shared_java_and_perl_locks"),
    "TclX flock": twin("TclX `flock`", "TclX"),
    "npm lockfile": Program("npm's lockfile", jobs("npm_lockfile"), jobs("npm_lockfile")),
    "npm proper-lockfile": Program(
        "npm's proper-lockfile", "test_mkdir_locks.py::test_proper_lockfile_excludes",
        "test_mkdir_locks.py::test_proper_lockfile_calls_a_dead_one_stale[9]"),
    "etcdctl lock": Program(
        "`etcdctl lock /latchfs/NAME`", "test_interop.py::test_etcdctl_lock_keeps_us_waiting"
        " test_interop.py::test_we_keep_etcdctl_lock_waiting",
        "test_interop.py::test_killed_foreign_holder_and_ours[etcdctl]"),
    "Go Mutex": Program(
        "Go `concurrency.Mutex` on `/latchfs/NAME`",
        "test_interop.py::test_go_mutex_excludes_us_and_we_it",
        "test_interop.py::test_killed_foreign_holder_and_ours[go]"),
}


def refused(readme, *names):
    """What test_job_programs.py finds refused, whatever the policy."""
    return Program(readme, jobs(*(f"what_cannot_be_served_is_told_so[{name}-{hold}]"
                                  for name in names for hold in ("close", "name"))), "")


# Those that can't be served.
HOPELESS = {
    "git": refused("git", "git"),
    "logrotate, for its state file": Program("logrotate's state file", jobs("logrotate"), ""),
    "mutt_dotlock": refused("`mutt_dotlock`", "mutt_dotlock"),
    "Perl LockFile::Simple": refused("Perl LockFile::Simple", "LockFile::Simple"),
    "Perl File::NFSLock": refused("Perl File::NFSLock", "File::NFSLock"),
    "Python LinkLockFile, MkdirLockFile (lockfile)": refused(
        "Python lockfile (LinkLockFile, MkdirLockFile)", "LinkLockFile", "MkdirLockFile"),
}


# --- what the tables say ---


def readme_rows(header):
    """The table of README under that header, without it."""
    text = README.read_text(encoding="utf-8")
    table = text[text.index(f"\n| {header} |"):].partition("\n\n")[0].strip().splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]


def manual_section():
    """The manual on programs."""
    text = MANUAL.read_text(encoding="utf-8").replace(r"\(dq", '"').replace(r"\&", "")
    return re.search(r"^\.Sh PROGRAMS\n(.*?)^\.Sh ", text, re.M | re.S).group(1)


def manual_rows(header):
    """The same of the manual; what is empty is as above."""
    section = manual_section()
    table = section[section.index(f"\n.It Sy {header} Ta"):].partition("\n.El")[0]
    rows = []
    for line in table.strip().splitlines()[1:]:
        cells = line.removeprefix(".It ").split(" Ta ")
        rows.append([rows[-1][i] if cell == '""' else cell for i, cell in enumerate(cells)])
    return rows


def manual_says():
    """Program -> how it locks, and what comes of the lock by policy, as the manual says."""
    found = {}
    for cell, how, policy, killed in manual_rows("program"):
        for name in cell.split(", "):
            found.setdefault(name, (how, []))[1].append((policy, killed))
    return found


def outcomes(works, killed):
    """README's words for that in the manual's."""
    policies = ["-"]
    if not works.startswith("yes"):
        policies = ["+".join(re.findall(r"`(?:hold=)?(.+?)`", one)) for one in works.split(" or ")]
    ends = [{"free when it is stale": "when stale", "free after its TTL": "its TTL"}.get(end, end)
            for end in killed.partition(";")[0].split(", or ")]
    return list(zip(policies, ends, strict=True))


def readme_says():
    """README's cell -> how it locks, and the same outcomes, or None if it does not work."""
    found, before = {}, None
    for cell, how, works, killed in readme_rows("program"):
        before = before if how == "the same" else how
        found[cell] = before, None if works.startswith("no: ") else outcomes(works, killed)
    return found


def cell_of(program, cells):
    """The one that names a program."""
    (cell,) = [cell for cell in cells if program.readme in cell]
    return cell


# --- the tests ---


@pytest.fixture(scope="module")
def all_tests():
    """The names of all tests in the files that are named, with those of their parameters."""
    named = [test for program in PROGRAMS.values() for test in program.tests()]
    files = sorted({test.partition("::")[0] for test in named} & set(os.listdir(HERE)))
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    said = checked(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q",
                   "--collect-only", *files, cwd=HERE, env=environment, timeout=120)
    return {line.rpartition("/")[2] if "/" in line.partition("::")[0] else line
            for line in said.splitlines() if "::" in line}


def test_every_row_has_its_tests(all_tests):
    """Each program of the manual is in the list above, and what stands there are tests."""
    hopeless = re.findall(r"^\.It (?!Sy|.* Ta )(.+)$", manual_section(), re.M)
    assert set(manual_says()) == set(PROGRAMS)
    assert sorted(hopeless) == sorted(HOPELESS)
    for name, program in {**PROGRAMS, **HOPELESS}.items():
        assert each(program.excludes) and set(program.tests()) <= all_tests, name
    for name, program in PROGRAMS.items():
        assert program.killed, name
        for test in each(program.killed):
            assert kills(test), test


def kills(test):
    """Whether a test kills somebody."""
    file, function = re.fullmatch(r"(.+?)::(\w+)(?:\[.*)?", test).groups()
    text = (HERE / file).read_text(encoding="utf-8")
    body = re.search(rf"^def {function}\(.*?(?=^(?:def|class|@|# ---)|\Z)", text, re.M | re.S)
    return ".kill(" in body.group()


def test_every_program_that_is_tested_has_its_row(all_tests):
    """Those that are tested against their twins are in the tables."""
    named = {test for program in PROGRAMS.values() for test in program.tests()}
    twins = {test for test in all_tests if "::test_killed_program_leaves_no_lock[" in test}
    assert twins and twins <= named


def test_readme_and_manual_agree():
    """On which programs there are, how each locks, with which policy, and how that ends."""
    readme, manual = readme_says(), manual_says()
    left = dict(zip(readme, readme))
    for name, program in {**PROGRAMS, **HOPELESS}.items():
        cell = cell_of(program, readme)
        left[cell] = left[cell].replace(program.readme, "", 1)
        how, ends = readme[cell]
        assert (ends is None) == (name in HOPELESS), name
        if ends is not None:
            assert set(re.findall(r"\w+", manual[name][0])) <= set(re.findall(r"\w+", how)), name
            assert manual[name][1] == ends, name
    # Nothing is named in README alone.
    assert not [rest for rest in left.values() if rest.strip(", ")]


def test_who_is_killed_alone():
    """Both say what test_job_programs.py finds of a locker that is killed without its command."""
    said = []
    for rows in readme_rows("killed alone"), manual_rows("killed alone"):
        said.append({name: (command == "goes on", lock == "stays with it")
                     for cell, command, lock in rows for name in cell.replace("`", "").split(", ")})
    options = re.compile(r" -(?!o|F)\w+| \d+")
    assert said[0] == said[1] == {options.sub("", name): found for name, found in ALONE.items()}
