/* SPDX-License-Identifier: MIT */
/* How many locks there are, and in which states. */
#include <utlist.h>

#include "lock/internal.h"

static void count_claim(const struct holding *holding, struct lockspace_counts *counts)
{
	/* Patient ones are in no queue while they wait. */
	counts->waiting += holding->is_parked;
	switch (holding->claim.state) {
	case CLAIM_NEW:
	case CLAIM_JOINING:
	case CLAIM_WAITING:
		counts->waiting++;
		break;
	case CLAIM_HELD:
		counts->held++;
		break;
	case CLAIM_LOST:
		counts->lost++;
		break;
	case CLAIM_LEAVING:
		counts->releasing++;
		break;
	case CLAIM_OVER:
		break;
	}
}

void lockspace_count(const struct lockspace *space, struct lockspace_counts *counts)
{
	const struct holding *holding;

	*counts = (struct lockspace_counts){.content = space->content};
	DL_FOREACH2(space->all, holding, all_next) {
		count_claim(holding, counts);
	}
}
