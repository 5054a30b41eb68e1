# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# What looks at the sources without running them; read by tests/run.

sources() {
	find src tests/unit "$@" -name '*.[ch]' | sort
}

tidy() {
	local files

	mapfile -t files < <(find src -name '*.c' | sort)
	printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P 2 clang-tidy --quiet -p "$top/clang"
}

# The loops over utlist's lists look to it as if nothing set their variable.
cpp_check() {
	cppcheck --quiet -j 2 --project="$top/clang/compile_commands.json" \
		--enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
		--suppress=missingIncludeSystem --suppress='*:/usr/*' --suppress=uninitvar
}

# All of its warnings are errors but one: memory that was put into one of utlist's lists or uthash's
# tables looks to it as if nobody knew it any more.  The sanitizers and valgrind see such leaks.
analyzer() {
	build "$top/analyzer" gcc src/latchfs -Dc_args='-fanalyzer -Wno-analyzer-malloc-leak'
}

# Whether all of it compiles with another C library; Debian has no other libraries for that one, but
# their headers will do.
musl() {
	local headers=$top/musl file

	rm -rf "$headers"
	mkdir -p "$headers"
	for file in cjson fuse3 linux asm-generic uthash.h utlist.h "$(gcc -print-multiarch)"/{asm,curl}; do
		ln -s "/usr/include/$file" "$headers"
	done
	find src -name '*.c' -print0 | xargs -0 -n 1 -P 2 musl-gcc -std=gnu11 -fsyntax-only -Wall -Werror \
		-D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DLATCHFS_VERSION='""' \
		-Isrc -isystem "$headers" -isystem "$headers/fuse3"
}

formatted() {
	local files

	mapfile -t files < <(sources tests/integration/programs tests/bench tests/faults tests/fuzz)
	clang-format --dry-run -Werror "${files[@]}"
}

manual() {
	local output

	output=$(mandoc -Tlint -W warning contrib/man/*.[78]) || {
		echo "$output"
		return 1
	}
}

scripts() {
	local files=() file

	for file in tests/run tests/ci/* tests/campaign tests/bench/run tests/fuzz/run \
		tests/model/check .ci/run contrib/* contrib/*/* tests/integration/programs/*; do
		[ -f "$file" ] && head -n 1 "$file" | grep -q '^#!.*sh' && files+=("$file")
	done
	shellcheck -x "${files[@]}" contrib/completion/latchfs.bash
}

static_checks() {
	check "format" formatted
	check "clang-tidy" tidy
	check "cppcheck" cpp_check
	check "gcc's analyzer" analyzer
	check "musl" musl
	check "layers" tests/layers
	check "layers, selftest" tests/layers --selftest
	check "manual page" manual
	check "shell scripts" scripts
}
