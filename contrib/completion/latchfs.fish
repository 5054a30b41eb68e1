# SPDX-License-Identifier: MIT
#
# Completion of latchfs's command line for fish.

function __latchfs_options
    __fish_append , \
        ttl= timeout= prefix= cacert= cert= key= user= password_file= name= \
        max_claims= max_content= max_handles= user_share= write_rate= root_mode= supervise=yes supervise=no \
        hold=close hold=process hold=name names=held names=always open=plain open=lock \
        record=yes record=no on_loss=error on_loss=term on_loss=kill dirs=keep dirs=lease \
        mkdir=write mkdir=owner allow_other default_permissions ro auto_unmount _netdev nofail noauto
end

set -l commands status top check selftest
set -l no_command "not __fish_seen_subcommand_from $commands"
set -l mounts "$no_command; or __fish_seen_subcommand_from check"

for command in latchfs mount.latchfs
    complete -c $command -n $mounts -s o -x -a '(__latchfs_options)' -d 'Mount options'
    complete -c $command -n $no_command -s f -d 'Stay in the foreground'
    complete -c $command -n $mounts -s d -d 'In the foreground, and tell of every request'
    complete -c $command -n $no_command -s h -l help -d 'Print a summary of the usage'
    complete -c $command -n $no_command -s V -l version -d 'Print the version'
end

complete -c latchfs -n __fish_is_first_token -a status -d 'How a mount is'
complete -c latchfs -n __fish_is_first_token -a top -d 'The hottest locks'
complete -c latchfs -n __fish_is_first_token -a check -d 'Whether a mount would work'
complete -c latchfs -n __fish_is_first_token -a selftest -d 'Whether locks exclude each other'
complete -c latchfs -n '__fish_seen_subcommand_from status' -l json -d 'Print the file as it is'
complete -c latchfs -n '__fish_seen_subcommand_from top' -s d -x -d 'Seconds between two pages'
