/* SPDX-License-Identifier: MIT */
/* What --help says. */
#pragma once

void help_print(void);
