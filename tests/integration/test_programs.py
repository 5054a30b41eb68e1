# SPDX-License-Identifier: MIT
"""Programs people already have: each excludes its twin on the other mount."""

from dataclasses import dataclass

import pytest

from support import PROGRAMS, SOON, run, wait_until

JOB = ("sh", "-c", "echo held; cat")
PERL = ("perl", str(PROGRAMS / "perl-flock.pl"))
PYTHON = ("/usr/bin/python3", str(PROGRAMS / "pylock.py"))
RUBY = ("ruby", "-e", "f = File.open(ARGV[0], File::RDWR | File::CREAT); "
        "f.flock(File::LOCK_EX | (ENV['WAIT'] ? 0 : File::LOCK_NB)) or exit 75; "
        "puts 'held'; STDOUT.flush; STDIN.read")
TCLX = ("tclsh", str(PROGRAMS / "tclx.tcl"))
PHP = ("php", "-r", "$f = fopen($argv[1], 'c+'); flock($f, LOCK_EX | LOCK_NB) || exit(75); "
       "echo \"held\\n\"; stream_get_contents(STDIN);", "--")

pytestmark = pytest.mark.portable


@dataclass
class Locker:
    """A program: words before and after the file name, for trying and for waiting.

    One that locks only a part of the file does not show in the queue while it waits.
    """

    before: tuple
    after: tuple = ()
    waiting: tuple = None
    part: bool = False

    def words(self, path, wait=False):
        """The command that locks path."""
        return [*(self.waiting if wait else self.before), path, *self.after]

    def await_waiting(self, pair, second):
        """Waits until the second of two waits for the first."""
        if self.part:
            second.await_waiting("fcntl")
        else:
            pair.await_queue("p", 2)
        assert not second.holds()


LOCKERS = {
    "flock": Locker(("flock", "-n"), JOB, ("flock",)),
    "setlock": Locker(("setlock", "-n"), JOB, ("setlock",)),
    "chpst": Locker(("chpst", "-L"), JOB, ("chpst", "-l")),
    "with-lock-ex": Locker(("with-lock-ex", "-f"), JOB, ("with-lock-ex", "-w"), part=True),
    "lckdo": Locker(("lckdo",), JOB, ("lckdo", "-w")),
    "runlock": Locker(("runlock", "-t", "1", "-f"), JOB, ("runlock", "-t", "60", "-f")),
    "java": Locker(("try",), (), ("wait",)),
    "go": Locker(("try",), (), ("wait",)),
    "TclX": Locker((*TCLX, "try"), (), (*TCLX, "wait")),
    "perl": Locker((*PERL, "try"), (), (*PERL, "wait")),
    "File::Flock": Locker((*PERL, "File::Flock:try"), (), (*PERL, "File::Flock:wait")),
    "filelock": Locker((*PYTHON, "filelock")),
    "SoftFileLock": Locker((*PYTHON, "softfilelock")),
    "portalocker": Locker((*PYTHON, "portalocker")),
    "fasteners": Locker((*PYTHON, "fasteners")),
    "zc.lockfile": Locker((*PYTHON, "zc_lockfile")),
    "ruby": Locker(RUBY, (), ("env", "WAIT=1", *RUBY)),
    "php": Locker(PHP),
}
WAITING = [name for name, locker in LOCKERS.items() if locker.waiting]
# Those that must be built, and by which fixture.
BUILT = {"java": "java_lock", "go": "go_flock"}


@pytest.fixture
def locker(request):
    """One of the programs."""
    name = request.param
    found = LOCKERS[name]
    if name not in BUILT:
        return found
    words = tuple(request.getfixturevalue(BUILT[name]))
    return Locker((*words, "try"), (), (*words, "wait"))


@pytest.mark.parametrize("locker", LOCKERS, indirect=True)
def test_excludes_its_twin_on_the_other_mount(pair, holder, locker):
    """Held on A, refused on B; free on A, granted on B."""
    first = holder(*locker.words(pair.a / "p")).await_held()
    for mount in (pair.b, pair.a):
        refused = run(*locker.words(mount / "p"))
        assert refused.returncode != 0 and "held" not in refused.stdout, refused
    assert first.release() == 0
    wait_until(lambda: run(*locker.words(pair.b / "p")).stdout == "held\n", SOON)


@pytest.mark.parametrize("locker", WAITING, indirect=True)
def test_waits_for_its_twin_on_the_other_mount(pair, holder, locker):
    """Held on A, waiting on B; given back on A, granted on B."""
    first = holder(*locker.words(pair.a / "p", wait=True)).await_held()
    second = holder(*locker.words(pair.b / "p", wait=True))
    locker.await_waiting(pair, second)
    assert first.release() == 0
    second.await_held(SOON)
    assert second.release() == 0


@pytest.mark.parametrize("locker", LOCKERS, indirect=True)
def test_killed_program_leaves_no_lock(pair, holder, locker, request):
    """kill -9 of any of them frees the lock for its twin, even those that use lock files."""
    if request.config.getoption("--reference") and locker is LOCKERS["SoftFileLock"]:
        pytest.skip("on a local disk its file stays behind")
    first = holder(*locker.words(pair.a / "p")).await_held()
    first.kill()
    wait_until(lambda: run(*locker.words(pair.b / "p")).stdout == "held\n", SOON)


@pytest.mark.parametrize("locker", WAITING, indirect=True)
def test_killed_program_lets_the_waiting_one_in(pair, holder, locker):
    """The same of those that wait for their locks, and it is their twin on B that gets it."""
    first = holder(*locker.words(pair.a / "p", wait=True)).await_held()
    second = holder(*locker.words(pair.b / "p", wait=True))
    locker.await_waiting(pair, second)
    first.kill()
    second.await_held(SOON)
    assert second.release() == 0


@pytest.mark.parametrize("locker", LOCKERS, indirect=True)
def test_all_exclude_flock(pair, holder, locker, request):
    """flock(1) on B respects every one of them, whichever system call it uses."""
    if request.config.getoption("--reference"):
        pytest.skip("locally flock and fcntl do not see each other")
    first = holder(*locker.words(pair.a / "p")).await_held()
    assert run("flock", "-n", pair.b / "p", "true").returncode == 1
    assert first.release() == 0
    wait_until(lambda: run("flock", "-n", pair.b / "p", "true").returncode == 0, SOON)


@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_python_fcntl_module(pair, holder, call):
    """python3's fcntl.flock and fcntl.lockf, as scripts use them, exclude across machines."""
    script = ("import fcntl, sys\nf = open(sys.argv[1], 'w')\n"
              f"fcntl.{call}(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
              "print('held', flush=True)\nsys.stdin.read()\n")
    words = ["/usr/bin/python3", "-c", script]
    first = holder(*words, pair.a / "p").await_held()
    assert "BlockingIOError" in run(*words, pair.b / "p").stderr
    assert first.release() == 0
    wait_until(lambda: run(*words, pair.b / "p").stdout == "held\n", SOON)
    holder(*words, pair.a / "p").await_held().kill()
    wait_until(lambda: run(*words, pair.b / "p").stdout == "held\n", SOON)


def test_java_ranges(pair, holder, java_lock):
    """FileChannel locks of parts exclude each other where they overlap, until kill -9."""
    first = holder(*java_lock, "range", pair.a / "p", 0, 10).await_held()
    second = holder(*java_lock, "range", pair.b / "p", 10, 10).await_held()
    overlap = [*java_lock, "range", pair.b / "p", 5, 1]
    assert run(*overlap).returncode == 75
    first.kill()
    wait_until(lambda: run(*overlap).stdout == "held\n", SOON)
    assert run(*java_lock, "range", pair.a / "p", 19, 1).returncode == 75
    assert second.release() == 0


def test_shared_java_and_perl_locks(pair, holder, java_lock):
    """Shared locks of Java on A and B go together, and so do Perl's; kill -9 frees each."""
    for words in (java_lock, PERL):
        first = holder(*words, "shared", pair.a / "p").await_held()
        second = holder(*words, "shared", pair.b / "p").await_held()
        assert run(*words, "try", pair.b / "p").returncode == 75
        assert first.release() == 0
        assert run(*words, "try", pair.b / "p").returncode == 75
        second.kill()
        wait_until(lambda: run(*words, "try", pair.b / "p").returncode == 0, SOON)


def test_systemd_style_inherited_descriptor(pair):
    """A descriptor that holds, inherited by an unrelated program, goes on holding."""
    script = ('exec 9>"$1"; flock 9; sleep 1000 & child=$!; exec 9>&-; '
              'flock -n "$2" true; echo $?; kill $child; wait $child; flock "$2" echo free')
    done = run("bash", "-c", script, "bash", pair.a / "p", pair.b / "p")
    assert done.stdout == "1\nfree\n", done
