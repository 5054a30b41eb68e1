# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Releases and packages: each is made as somebody would who makes one; read by tests/run.

# From what is committed: unpacked, built with warnings, tested and installed, all without a network.
release() {
	local offline=()

	[ "$(id -u)" -eq 0 ] && offline=(unshare -n)
	"${offline[@]}" meson dist -C "$top/gcc" --allow-dirty
}

packaging() {
	if [ -e .git ]; then
		check "release" release
	else
		echo "skipped release: this is no git checkout"
		count 0 0 1
	fi
	check "packages" tests/ci/packages "$top/packages"
}
