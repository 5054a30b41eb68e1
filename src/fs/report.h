/* SPDX-License-Identifier: MIT */
/* What the files below .latchfs say; the caller frees it. */
#pragma once

struct fs;

/* The mount as a JSON object. */
char *report_status(const struct fs *fs);

/* One word a line: what programs can rely on. */
char *report_capabilities(const struct fs *fs);
