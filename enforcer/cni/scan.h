/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds one member of a JSON object and returns its value as the bytes that were written: nothing
 * is decoded, so nothing can be changed. Pure, bounded by the end of the text and by SCAN_DEPTH;
 * text that is no JSON object has no members.
 */
#ifndef RINGFENCE_CNI_SCAN_H
#define RINGFENCE_CNI_SCAN_H

#include <stddef.h>
#include <string.h>

#define SCAN_DEPTH 64

struct span {
	const char *at; /* NULL: there is none */
	size_t length;
};

struct scan {
	const char *at;
	const char *end;
};

static inline void scan_blanks(struct scan *scan)
{
	while (scan->at < scan->end && strchr(" \t\r\n", *scan->at) && *scan->at)
		scan->at++;
}

static inline int scan_is(const struct scan *scan, char wanted)
{
	return scan->at < scan->end && *scan->at == wanted;
}

/* Steps over the wanted character; 0 if it is not there. */
static inline int scan_take(struct scan *scan, char wanted)
{
	if (!scan_is(scan, wanted))
		return 0;
	scan->at++;
	return 1;
}

static inline int scan_string(struct scan *scan)
{
	if (!scan_take(scan, '"'))
		return 0;
	while (scan->at < scan->end) {
		char now = *scan->at++;

		if (now == '"')
			return 1;
		if (now == '\\') {
			if (scan->at == scan->end)
				return 0;
			scan->at++;
		}
	}
	return 0;
}

/* A number or a word; the agent checks which. */
static inline int scan_scalar(struct scan *scan)
{
	const char *start = scan->at;

	while (scan->at < scan->end &&
	       ((*scan->at >= '0' && *scan->at <= '9') || (*scan->at >= 'a' && *scan->at <= 'z') ||
		(*scan->at >= 'A' && *scan->at <= 'Z') || *scan->at == '-' || *scan->at == '+' ||
		*scan->at == '.'))
		scan->at++;
	return scan->at > start;
}

static inline int scan_value(struct scan *scan, int depth);

/* The rest of an array or object behind its first bracket. */
static inline int scan_rest(struct scan *scan, char closing, int depth)
{
	scan_blanks(scan);
	if (scan_take(scan, closing))
		return 1;
	do {
		scan_blanks(scan);
		if (closing == '}') {
			if (!scan_string(scan))
				return 0;
			scan_blanks(scan);
			if (!scan_take(scan, ':'))
				return 0;
		}
		if (!scan_value(scan, depth - 1))
			return 0;
		scan_blanks(scan);
	} while (scan_take(scan, ','));
	return scan_take(scan, closing);
}

/* Steps over one value with the blanks before it; 0 if there is none. */
static inline int scan_value(struct scan *scan, int depth)
{
	if (depth <= 0)
		return 0;
	scan_blanks(scan);
	if (scan_is(scan, '"'))
		return scan_string(scan);
	if (scan_take(scan, '{'))
		return scan_rest(scan, '}', depth);
	if (scan_take(scan, '['))
		return scan_rest(scan, ']', depth);
	return scan_scalar(scan);
}

/* The next member of an object, at its name; 0 at the end and where it is no JSON any more. */
static inline int scan_member(struct scan *scan, struct span *name, struct span *value)
{
	scan_blanks(scan);
	name->at = scan->at;
	if (!scan_string(scan))
		return 0;
	name->length = scan->at - name->at;
	scan_blanks(scan);
	if (!scan_take(scan, ':'))
		return 0;
	scan_blanks(scan);
	value->at = scan->at;
	if (!scan_value(scan, SCAN_DEPTH))
		return 0;
	value->length = scan->at - value->at;
	scan_blanks(scan);
	return 1;
}

/* The value of a member, `wanted` being its name; the last one where a name comes again. */
static inline struct span scan_find(const char *text, size_t length, const char *wanted)
{
	struct scan scan = { text, text + length };
	struct span none = { NULL, 0 }, found = none, name, value;
	size_t size = strlen(wanted);

	scan_blanks(&scan);
	if (!scan_take(&scan, '{'))
		return none;
	scan_blanks(&scan);
	if (scan_is(&scan, '}'))
		return none;
	do {
		if (!scan_member(&scan, &name, &value))
			return none;
		if (name.length == size + 2 && !memcmp(name.at + 1, wanted, size))
			found = value;
	} while (scan_take(&scan, ','));
	return scan_is(&scan, '}') ? found : none;
}

/* Copies a string without its quotes; 0 if it is none, has escapes or does not fit. */
static inline int scan_copy(struct span value, char *target, size_t size)
{
	if (!value.at || value.length < 2 || *value.at != '"' || value.length - 1 > size ||
	    memchr(value.at, '\\', value.length) || memchr(value.at, 0, value.length))
		return 0;
	memcpy(target, value.at + 1, value.length - 2);
	target[value.length - 2] = 0;
	return 1;
}

#endif
