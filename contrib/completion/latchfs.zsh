#compdef latchfs mount.latchfs
# SPDX-License-Identifier: MIT
#
# Completion of latchfs's command line for zsh; installed as _latchfs.

_latchfs_options() {
	_values -s , 'mount option' \
		'ttl[a lock of a machine that died is free after that]:seconds:' \
		'timeout[patience with the store where nothing may wait]:seconds:' \
		'prefix[of the keys in the store]:prefix:' \
		'cacert[certificates that are trusted]:file:_files' \
		'cert[the client certificate]:file:_files' \
		'key[its key]:file:_files' \
		'user[who we are to the store]:name:' \
		'password_file[its first line is the password]:file:_files' \
		'name[this node in records]:name:' \
		'max_claims[locks held or waited for at once]:number:' \
		'max_content[of all lock files together]:MiB:' \
		'max_handles[files and directories open at once]:number:' \
		'write_rate[into lock files in a second]:KiB:' \
		'user_share[of each limit for one user]:percent:' \
		'root_mode[of the root directory, until it is changed]:mode:(755 1777)' \
		'supervise[another process goes on if this one dies]:policy:(yes no)' \
		'hold[how long an O_EXCL lock lives]:policy:(close process name)' \
		'names[when a name exists]:policy:(held always)' \
		'open[whether open takes the lock]:policy:(plain lock)' \
		'record[whether an empty lock file reads as its record]:policy:(yes no)' \
		'on_loss[what happens besides the errors]:policy:(error term kill)' \
		'dirs[how long directories live]:policy:(keep lease)' \
		'mkdir[who makes directories]:policy:(write owner)' \
		'allow_other[let other users in]' \
		'default_permissions[let the kernel check permissions too]' \
		'ro[create no names]' \
		'auto_unmount[what happens anyhow]' \
		'_netdev[needs the network]' \
		'nofail[the boot goes on without it]' \
		'noauto[not at boot]'
}

_latchfs_commands() {
	local commands=(
		'status:how a mount is' 'top:the hottest locks' 'check:whether a mount would work'
		'selftest:whether locks exclude each other'
	)

	_describe command commands
}

_latchfs() {
	case $words[2] in
	status)
		shift words
		((CURRENT--))
		_arguments '--json[print the file as it is]' '1:mount point:_directories'
		;;
	top)
		shift words
		((CURRENT--))
		_arguments '-d+[the time between two pages]:seconds:' '1:mount point:_directories'
		;;
	check)
		shift words
		((CURRENT--))
		_arguments -s '*-o[mount options]:options:_latchfs_options' \
			'-d[tell of every request]' '1:source: ' '2:mount point:_directories'
		;;
	selftest)
		shift words
		((CURRENT--))
		_arguments '1:directory:_directories' '2:directory:_directories'
		;;
	*)
		_arguments -s \
			'*-o[mount options]:options:_latchfs_options' \
			'-f[stay in the foreground]' \
			'-d[the same, and tell of every request]' \
			'(- *)'{-h,--help}'[print a summary of the usage]' \
			'(- *)'{-V,--version}'[print the version]' \
			'1:source:_latchfs_commands' \
			'2:mount point:_directories'
		;;
	esac
}

_latchfs "$@"
