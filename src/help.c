/* SPDX-License-Identifier: MIT */
#include "help.h"

#include <stdio.h>

void help_print(void)
{
	fputs("usage: latchfs [-o opt,...] [-f] [-d] SOURCE MOUNTPOINT\n"
	      "       latchfs status [--json] MOUNTPOINT\n"
	      "       latchfs top [-d SECONDS] MOUNTPOINT\n"
	      "       latchfs check [-o opt,...] SOURCE\n"
	      "       latchfs selftest DIRECTORY [DIRECTORY]\n"
	      "\n"
	      "Mounts a directory in which every file is a lock, shared by all who mount SOURCE.\n"
	      "With `status` it says how a mount is, with `top` which locks are the hottest,\n"
	      "with `check` whether a mount would work, and with `selftest` whether locks in\n"
	      "directories exclude each other.\n"
	      "\n"
	      "SOURCE is http://HOST:PORT[,...][/PREFIX] or https://..., of an etcd cluster;\n"
	      "the prefix of its keys is /latchfs if none is given.\n"
	      "\n"
	      "  -f                    stay in the foreground\n"
	      "  -d                    the same, and tell of every request\n"
	      "  -o ttl=SECONDS        a lock of a machine that died is free after that (10)\n"
	      "  -o timeout=SECONDS    patience with the store where nothing may wait (5)\n"
	      "  -o prefix=PREFIX      of the keys in the store\n"
	      "  -o cacert=FILE, cert=FILE, key=FILE\n"
	      "                        for https, in PEM form\n"
	      "  -o user=NAME, password_file=FILE\n"
	      "                        who we are to the store\n"
	      "  -o supervise=yes|no   have another process go on if this one dies (yes)\n"
	      "  -o name=NAME          this node's name in records (the host name)\n"
	      "  -o max_claims=NUMBER  of locks held or waited for at once (100000)\n"
	      "  -o max_content=MIB    that all lock files' contents may have together (256)\n"
	      "  -o max_handles=NUMBER of files and directories open at once (200000)\n"
	      "  -o user_share=PERCENT of each of these that one user may have (10)\n"
	      "  -o root_mode=MODE     of the root directory, until it is changed (1777)\n"
	      "  -o names=held|always, open=plain|lock, record=yes|no, on_loss=error|term|kill,\n"
	      "     hold=close|process|name, dirs=keep|lease, mkdir=write|owner\n"
	      "                        policies of the root directory\n"
	      "  -o allow_other        let other users in, and FUSE's further options\n"
	      "  -h, --help            this text\n"
	      "  -V, --version         the version\n"
	      "\n"
	      "The environment variables ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT,\n"
	      "ETCDCTL_KEY, ETCDCTL_USER and ETCDCTL_PASSWORD stand in for what is not given.\n"
	      "See latchfs(8) for all of it.\n",
		stdout);
}
