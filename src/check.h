/* SPDX-License-Identifier: MIT */
/* latchfs check [-o opt,...] SOURCE: whether a mount would work, and what it would do. */
#pragma once

struct etcd_options;
struct options;

/* Both say the same; etcd: what a mount would be made with.  Gives the status to exit with. */
int check_run(const struct options *options, const struct etcd_options *etcd);
