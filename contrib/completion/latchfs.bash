# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Completion of latchfs's command line for bash.

# What may stand behind the last comma of -o.
_latchfs_options() { # WORD
	local names=(
		ttl= timeout= prefix= cacert= cert= key= user= password_file= name= max_claims=
		max_content= max_handles= user_share= write_rate= root_mode= supervise= hold= names= open= record=
		on_loss= dirs= mkdir= allow_other default_permissions ro auto_unmount _netdev nofail
		noauto
	)

	case $1 in
	hold=*) compgen -P hold= -W 'close process name' -- "${1#*=}" ;;
	names=*) compgen -P names= -W 'held always' -- "${1#*=}" ;;
	open=*) compgen -P open= -W 'plain lock' -- "${1#*=}" ;;
	supervise=*) compgen -P supervise= -W 'yes no' -- "${1#*=}" ;;
	record=*) compgen -P record= -W 'yes no' -- "${1#*=}" ;;
	on_loss=*) compgen -P on_loss= -W 'error term kill' -- "${1#*=}" ;;
	dirs=*) compgen -P dirs= -W 'keep lease' -- "${1#*=}" ;;
	mkdir=*) compgen -P mkdir= -W 'write owner' -- "${1#*=}" ;;
	cacert=* | cert=* | key=* | password_file=*) compgen -P "${1%%=*}=" -f -- "${1#*=}" ;;
	*=*) ;;
	*) compgen -W "${names[*]}" -- "$1" ;;
	esac
}

# What begins with a dash behind that command, or without one.
_latchfs_flags() { # COMMAND
	case $1 in
	status) echo --json ;;
	top) echo -d ;;
	check) echo -o -d ;;
	selftest) ;;
	*) echo -o -f -d -h --help -V --version ;;
	esac
}

_latchfs() {
	local line=${COMP_LINE:0:COMP_POINT} word before ready command

	# Bash has cut the line at = and : already, and we want it cut at blanks.
	word=${line##*[[:blank:]]}
	before=${line%"$word"}
	before=${before%"${before##*[![:blank:]]}"}
	read -r _ command _ <<<"$before"
	if [[ ${before##*[[:blank:]]} == -o && $command != @(status|top|selftest) ]]; then
		ready=${word%"${word##*,}"}
		mapfile -t COMPREPLY < <(_latchfs_options "${word##*,}")
		COMPREPLY=("${COMPREPLY[@]/#/$ready}")
		ready=${word%"${word##*[=:]}"} # what bash takes for earlier words
		COMPREPLY=("${COMPREPLY[@]#"$ready"}")
		compopt -o nospace
	elif [[ $word == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_latchfs_flags "$command")" -- "$word")
	elif [[ $command == top && ${before##*[[:blank:]]} == -d ]]; then
		COMPREPLY=()
	elif [[ $word != *:* ]]; then
		mapfile -t COMPREPLY < <(
			[[ $command ]] || compgen -W 'status top check selftest' -- "$word"
			compgen -d -- "$word"
		)
		compopt -o filenames
	fi
}

complete -F _latchfs latchfs mount.latchfs
