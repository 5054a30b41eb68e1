# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# The tests on real mounts, and how much of the sources all tests have run; read by tests/run.

# As many at a time as LATCHFS_JOBS says: most of them wait rather than compute.  The arguments may
# say otherwise.
mount_tests() { # NAME ARGUMENT OF PYTEST...
	local report=$top/$1.xml

	shift
	rm -f "$report"
	"${as_root[@]}" env PYTHONDONTWRITEBYTECODE=1 LATCHFS_GOCACHE="$PWD/$top/gocache" \
		LATCHFS_BINARY="${LATCHFS_BINARY:-$PWD/$top/asan/src/latchfs}" \
		LATCHFS_PLAIN_BINARY="${LATCHFS_PLAIN_BINARY:-$PWD/$top/gcc/src/latchfs}" \
		LATCHFS_ETCD="${LATCHFS_ETCD:-etcd}" \
		"$python" -m pytest -p no:cacheprovider -n "${LATCHFS_JOBS:-3}" -ra --durations=10 \
		--junitxml="$report" "$@" tests/integration </dev/null
	[ $? -eq 3 ] && count 0 1 0 # pytest itself has failed
	# shellcheck disable=SC2046 # three numbers
	count $("$python" - "$report" <<-'END'
		import sys
		import xml.etree.ElementTree as xml

		def outcome(case):
		    if case.find("failure") is not None or case.find("error") is not None:
		        return "failed"
		    return "passed" if case.find("skipped") is None else "skipped"

		try:
		    cases = list(xml.parse(sys.argv[1]).iter("testcase"))
		except (OSError, xml.ParseError):
		    print(0, 1, 0)
		    sys.exit()
		# A test that fails and then fails to clean up is listed twice.
		worst = {}
		for case in cases:
		    name = case.get("classname"), case.get("name")
		    worst[name] = min(worst.get(name, "skipped"), outcome(case))
		outcomes = list(worst.values())
		print(*(outcomes.count(kind) for kind in ("passed", "failed", "skipped")))
	END
	)
}

# The core of the tests once more, on the etcd of a newer Debian.
newer_etcd() {
	local place=$top/etcd-trixie

	check "fetch a newer etcd" tests/ci/etcd trixie "$place" || return
	LATCHFS_ETCD=$PWD/$place/usr/bin/etcd mount_tests core -m core
}

finished() { # PID LOG
	local status

	wait "$1"
	status=$?
	cat "$2"
	return $status
}

# Each fault once, some at once, and before that whether the checker finds what it is there for.
# This waits rather than computes, so what computes goes on beside it, and gives way to it.
faults() {
	nice -n 19 tests/fuzz/run >"$top/fuzz-beside.log" 2>&1 </dev/null &
	local fuzz=$!
	nice -n 19 tests/model/check >"$top/model-beside.log" 2>&1 </dev/null &
	local model=$!

	check "history checker" env PYTHONDONTWRITEBYTECODE=1 \
		"$python" -m pytest -p no:cacheprovider -q tests/faults
	check "faults" "${as_root[@]}" env \
		LATCHFS_BINARY="${LATCHFS_BINARY:-$PWD/$top/asan/src/latchfs}" tests/campaign
	check "model" finished $model "$top/model-beside.log"
	check "fuzzing" finished $fuzz "$top/fuzz-beside.log"
}

# Daemons add what they have run to files beside the objects, and complain if they can't: daemons of
# other users can when the files are there already.
forget_coverage() {
	local notes

	find "$top/asan/src" -name '*.gcno' | while read -r notes; do
		install -m 666 /dev/null "${notes%.gcno}.gcda"
	done
}
