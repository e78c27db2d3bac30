/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Words that every other header uses: addresses, directions, small helpers.
 *
 * Both families are one: an IPv4 address is kept as ::ffff:a.b.c.d, so that every map has one key
 * shape and every decision one copy. A packet that carries such an address on the wire is refused
 * by the parser, so the two can never be mixed up.
 */
#ifndef RINGFENCE_TYPES_H
#define RINGFENCE_TYPES_H

enum direction {
	DIR_INGRESS = 0, /* to the pod */
	DIR_EGRESS = 1, /* from the pod */
};

/*
 * What was written to memory is read back from there, and is any number to the verifier: paths that
 * differ only in such values are one path from here on.
 */
static __always_inline void forget(void)
{
	asm volatile("" ::: "memory");
}

struct address {
	union {
		__u8 bytes[16];
		__be16 words[8];
		__be32 quads[4];
		__u64 halves[2];
	};
};

_Static_assert(sizeof(struct address) == 16, "an address is 16 bytes in every map");

static __always_inline __be16 net16(__u16 value)
{
	return (__be16)__builtin_bswap16(value);
}

static __always_inline __be32 net32(__u32 value)
{
	return (__be32)__builtin_bswap32(value);
}

static __always_inline __u16 host16(__be16 value)
{
	return __builtin_bswap16((__u16)value);
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "net16, net32 and host16 assume a little endian machine"
#endif

static __always_inline void address_from_v4(struct address *address, __be32 v4)
{
	address->quads[0] = 0;
	address->quads[1] = 0;
	address->quads[2] = net32(0xffff);
	address->quads[3] = v4;
}

static __always_inline int address_equal(const struct address *a, const struct address *b)
{
	return a->halves[0] == b->halves[0] && a->halves[1] == b->halves[1];
}

static __always_inline int address_is_v4(const struct address *address)
{
	return address->halves[0] == 0 && address->quads[2] == net32(0xffff);
}

static __always_inline int address_is_unspecified(const struct address *address)
{
	return address->halves[0] == 0 && address->halves[1] == 0;
}

static __always_inline int address_is_link_local(const struct address *address)
{
	return (address->words[0] & net16(0xffc0)) == net16(0xfe80);
}

/* ff02::/16: never leaves the link, whatever the routes say. */
static __always_inline int address_is_link_multicast(const struct address *address)
{
	return address->words[0] == net16(0xff02);
}

#endif
