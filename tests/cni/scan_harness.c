/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads texts, each behind its length (4 bytes), looks in each for the members "a" and "prevResult",
 * and prints where their values are: "begin length" or "none". Built with sanitizers by the test.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "scan.h"

static void tell(const char *text, size_t length, const char *name)
{
	struct span found = scan_find(text, length, name);
	char copy[8];

	if (found.at)
		printf("%zu %zu %d\n", (size_t)(found.at - text), found.length,
		       scan_copy(found, copy, sizeof(copy)));
	else
		printf("none\n");
}

int main(void)
{
	uint32_t length;

	while (fread(&length, sizeof(length), 1, stdin) == 1) {
		char *text = malloc(length ? length : 1); /* of just this size: one more is found */

		if (!text || fread(text, 1, length, stdin) != length)
			return 1;
		tell(text, length, "a");
		tell(text, length, "prevResult");
		free(text);
	}
	return 0;
}
