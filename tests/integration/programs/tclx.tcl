# SPDX-License-Identifier: MIT
#
# Locks a file with TclX: tclx.tcl try|wait FILE.  Says "held", holds until its input ends; leaves
# with 75 when busy.

package require Tclx

lassign $argv how path
set file [open $path {RDWR CREAT}]
if {$how eq "wait"} {
	flock -write $file
} elseif {![flock -write -nowait $file]} {
	exit 75
}
puts held
flush stdout
read stdin
funlock $file
