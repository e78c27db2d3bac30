/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What shows that a value belongs to a key and was read as it was written: a sum over the words of
 * both, stored beside it. The kernel gives an element of a map to another key while programs still
 * read it, so a copy may belong to another key, or be half of each; then the sum is wrong, in
 * whatever order the words were written. Pure; enforcer/datapath/proof.py is the same in Python.
 */
#ifndef RINGFENCE_PROOF_H
#define RINGFENCE_PROOF_H

#define PROOF_SEED 0x2545f4914f6cdd1dULL
#define PROOF_FACTOR 0x9e3779b97f4a7c15ULL
#define PROOF_FACTOR_2 (PROOF_FACTOR * PROOF_FACTOR)
#define PROOF_FACTOR_3 (PROOF_FACTOR_2 * PROOF_FACTOR)
#define PROOF_FACTOR_4 (PROOF_FACTOR_3 * PROOF_FACTOR)

static __always_inline __u64 proof_add(__u64 sum, __u64 word)
{
	return sum * PROOF_FACTOR + word;
}

/*
 * Of `size` bytes in whole words: proof_add() of one after the other, with the powers of the factor
 * known beforehand, so that no product waits for another. A macro, because clang unrolls a loop
 * before it knows the arguments of a function; and word by word, because all at once want more
 * registers than there are.
 */
#define proof_over(sum, bytes, size)                                                    \
	({                                                                              \
		const __u64 *words = (const void *)(bytes);                             \
		__u64 power = 1, added = 0;                                             \
		__u32 left;                                                             \
                                                                                        \
		_Pragma("unroll") for (left = (size) / sizeof(__u64); left > 0; left--) \
		{                                                                       \
			added += words[left - 1] * power;                               \
			power *= PROOF_FACTOR;                                          \
			asm volatile("" : "+r"(added)::"memory");                       \
		}                                                                       \
		(sum) * power + added;                                                  \
	})

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
	__u64 rule = value->rule, reason = value->reason;

	return proof_over(PROOF_SEED, key, sizeof(*key)) * PROOF_FACTOR_4 +
	       (value->group | rule << 32) * PROOF_FACTOR_3 +
	       (value->opener | reason << 8) * PROOF_FACTOR_2 + value->generation * PROOF_FACTOR +
	       value->tenure;
}

#endif
