/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What shows that a value belongs to a key and was read as it was written: a sum over the words of
 * both, stored beside it. The kernel gives an element of a map to another key while programs still
 * read it, so a copy may be somebody else's, or half of one and half of another; then the sum is
 * wrong, in whatever order the words were written. Pure; enforcer/proof.py is the same in Python.
 */
#ifndef RINGFENCE_PROOF_H
#define RINGFENCE_PROOF_H

#define PROOF_SEED 0x2545f4914f6cdd1dULL
#define PROOF_FACTOR 0x9e3779b97f4a7c15ULL

static __always_inline __u64 proof_add(__u64 sum, __u64 word)
{
	return sum * PROOF_FACTOR + word;
}

/* Of `size` bytes in whole words. */
static __always_inline __u64 proof_over(__u64 sum, const void *bytes, __u32 size)
{
	const __u64 *words = bytes;
	__u32 i;

#pragma unroll
	for (i = 0; i < size / sizeof(__u64); i++)
		sum = proof_add(sum, words[i]);
	return sum;
}

/* Of a value that ends with its proof. */
#define PROOF_OF(sum, value) proof_over(sum, value, sizeof(*(value)) - sizeof(__u64))

static __always_inline __u64 proof_of_policy_key(const struct policy_key *key)
{
	__u64 peer = key->peer, protocol = key->protocol, direction = key->direction;

	return proof_add(proof_add(PROOF_SEED, key->group | peer << 32),
			 key->port | protocol << 16 | direction << 24);
}

/* Of a connection, but for what changes while it lives. */
static __always_inline __u64 proof_of_connection(const struct ct_key *key,
						 const struct ct_value *value)
{
	__u64 sum = proof_over(PROOF_SEED, key, sizeof(*key));
	__u64 rule = value->rule, reason = value->reason;

	sum = proof_add(sum, value->group | rule << 32);
	sum = proof_add(sum, value->opener | reason << 8);
	return proof_add(proof_add(sum, value->generation), value->tenure);
}

#endif
