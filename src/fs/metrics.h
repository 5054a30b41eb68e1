/* SPDX-License-Identifier: MIT */
/* What the file `metrics` says. */
#pragma once

struct fs;

/* All that is counted, as text for Prometheus; the caller frees it. */
char *metrics_text(const struct fs *fs);
