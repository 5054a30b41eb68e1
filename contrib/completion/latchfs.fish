# SPDX-License-Identifier: MIT
#
# Completion of latchfs's command line for fish.

function __latchfs_options
    __fish_append , \
        ttl= timeout= prefix= cacert= cert= key= user= password_file= name= \
        max_claims= max_content= \
        hold=close hold=process hold=name names=held names=always open=plain open=lock \
        record=yes record=no on_loss=error on_loss=term on_loss=kill dirs=keep dirs=lease \
        allow_other default_permissions ro auto_unmount _netdev nofail noauto
end

for command in latchfs mount.latchfs
    complete -c $command -s o -x -a '(__latchfs_options)' -d 'Mount options'
    complete -c $command -s f -d 'Stay in the foreground'
    complete -c $command -s d -d 'The same, and tell of every request'
    complete -c $command -s h -l help -d 'Print a summary of the usage'
    complete -c $command -s V -l version -d 'Print the version'
end
