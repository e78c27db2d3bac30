/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Lookups in maps whose elements change under their reader. A lookup is not a lock: what it found
 * is copied to scratch, the copy has to prove which key it belongs to, and only the copy is used.
 * A packet that met a copy without proof is judged again from its beginning, and after
 * LOOKUP_ATTEMPTS dropped; nothing found out until then opens anything.
 *
 * Tries need none of this: a node never changes once it is linked, and is freed a grace period
 * after it was taken out. Arrays have elements of their own for ever.
 */
#ifndef RINGFENCE_LOOKUP_H
#define RINGFENCE_LOOKUP_H

#define LOOKUP_ATTEMPTS 4

/*
 * Between finding and copying, for tests only: RINGFENCE_WIDEN makes programs slow there, so that
 * what happens once in a million packets happens all the time.
 */
#ifndef RINGFENCE_WIDEN
#define RINGFENCE_WIDEN 0
#endif
#define LOOKUP_WIDE (64 * RINGFENCE_WIDEN)

static __always_inline void lookup_widen(__u32 rounds)
{
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < rounds; i++)
		bpf_ktime_get_ns();
	forget();
}

/* In whole words; each is read once. A macro for the reason that proof_over() is one. */
#define lookup_copy(to, from)                                                                  \
	({                                                                                     \
		const volatile __u64 *source = (const volatile void *)(from);                  \
		__u64 *target = (void *)(to);                                                  \
		__u32 word;                                                                    \
                                                                                               \
		lookup_widen(RINGFENCE_WIDEN);                                                 \
		_Pragma("unroll") for (word = 0; word < sizeof(*(to)) / sizeof(__u64); word++) \
			target[word] = source[word];                                           \
		forget();                                                                      \
	})

/* Whether a copy is what it should be; if not, nothing that follows counts. */
static __always_inline int lookup_proven(struct scratch *scratch, __u64 sum, __u64 proof)
{
	if (sum == proof)
		return 1;
	scratch->unproven = 1;
	return 0;
}

/* The endpoint behind an interface, in scratch->endpoint. */
static __always_inline const struct endpoint *lookup_endpoint(struct scratch *scratch,
							      __u32 ifindex)
{
	const struct endpoint *found = ep_map.lookup(&ifindex);
	struct endpoint *copy = &scratch->endpoint;
	__u64 sum = proof_add(PROOF_SEED, ifindex);

	if (!found)
		return 0;
	lookup_widen(LOOKUP_WIDE);
	lookup_copy(copy, found);
	return lookup_proven(scratch, PROOF_OF(sum, copy), copy->proof) ? copy : 0;
}

/* The owner of an address, in scratch->address. A miss is looked up twice: it would open. */
static __always_inline int lookup_address(struct scratch *scratch, struct address *address)
{
	const struct address_value *found = addr_map.lookup(address);
	struct address_value *copy = &scratch->address;
	__u64 sum;

	if (!found)
		found = addr_map.lookup(address);
	if (!found)
		return 0;
	lookup_copy(copy, found);
	sum = proof_over(PROOF_SEED, address, sizeof(*address));
	return lookup_proven(scratch, PROOF_OF(sum, copy), copy->proof);
}

/*
 * The rule of a policy entry, or 0, also for one with unknown flags. Where rules deny, a miss is
 * looked up twice: a broader entry would open. Only a write of the very entry hides it for that
 * moment, and entries that deny are not rewritten while endpoints are judged by their group:
 * enforcer/writes/transition.py.
 */
static __always_inline __u32 lookup_rule(struct scratch *scratch, struct policy_key *key,
					 const struct endpoint *endpoint)
{
	const struct rule_value *found = pol_map.lookup(key);
	struct rule_value *copy = &scratch->rule;
	__u64 sum;

	if (!found && (endpoint->flags & EP_USES_DENY))
		found = pol_map.lookup(key);
	if (!found)
		return 0;
	lookup_copy(copy, found);
	sum = proof_of_policy_key(key);
	if (!lookup_proven(scratch, PROOF_OF(sum, copy), copy->proof) || copy->flags)
		return 0;
	return copy->rule;
}

/* The port at which the proxy listens for a rule, or 0. */
static __always_inline __u16 lookup_listener(struct scratch *scratch, __u32 rule)
{
	const struct listener_value *found = listen_map.lookup(&rule);
	struct listener_value *copy = &scratch->listening;
	__u64 sum = proof_add(PROOF_SEED, rule);

	if (!found)
		return 0;
	lookup_copy(copy, found);
	return lookup_proven(scratch, PROOF_OF(sum, copy), copy->proof) ? copy->port : 0;
}

/* Where a pod is that the proxy speaks to, in scratch->resident. */
static __always_inline int lookup_resident(struct scratch *scratch, struct address *address)
{
	const struct resident_value *found = resident_map.lookup(address);
	struct resident_value *copy = &scratch->resident;
	__u64 sum;

	if (!found)
		return 0;
	lookup_copy(copy, found);
	sum = proof_over(PROOF_SEED, address, sizeof(*address));
	return lookup_proven(scratch, PROOF_OF(sum, copy), copy->proof);
}

/* The backends of a Service, in scratch->service. A miss is looked up twice: it would open. */
static __always_inline int lookup_service(struct scratch *scratch, struct service_key *key)
{
	const struct service_value *found = svc_map.lookup(key);
	struct service_value *copy = &scratch->service;
	__u64 sum;

	if (!found)
		found = svc_map.lookup(key);
	if (!found)
		return 0;
	lookup_copy(copy, found);
	sum = proof_over(PROOF_SEED, key, sizeof(*key));
	return lookup_proven(scratch, PROOF_OF(sum, copy), copy->proof);
}

/*
 * The connection of a key, in scratch->entry; the result is the entry in the map, for lookup_mark
 * and lookup_refresh only.
 */
static __always_inline struct ct_value *lookup_connection(struct scratch *scratch,
							  struct ct_key *key)
{
	struct ct_value *found = ct_map.lookup(key);
	struct ct_value *copy = &scratch->entry;

	if (!found)
		return 0;
	lookup_copy(copy, found);
	return lookup_proven(scratch, proof_of_connection(key, copy), copy->proof) ? found : 0;
}

/* Sets the copy's flags in the map's entry, unless it has changed or belongs to another key. */
static __always_inline void lookup_mark(struct ct_value *living, const struct ct_value *copy,
					__u8 flags)
{
	struct ct_value wanted = { .seal = copy->seal };

	wanted.opener = copy->opener;
	wanted.flags = flags;
	wanted.reason = copy->reason;
	wanted.pad = copy->pad;
	__sync_val_compare_and_swap((__u64 *)&living->seal, *(const __u64 *)&copy->seal,
				    *(__u64 *)&wanted.seal);
}

static __always_inline void lookup_refresh(struct ct_value *living, const struct ct_value *copy,
					   __u64 now)
{
	__sync_val_compare_and_swap(&living->last, copy->last, now);
}

/* The first fragment of a datagram, in scratch->first. */
static __always_inline int lookup_fragment(struct scratch *scratch, struct frag_key *key)
{
	const struct frag_value *found = frag_map.lookup(key);
	struct frag_value *copy = &scratch->first;
	__u64 sum;

	if (!found)
		return 0;
	lookup_copy(copy, found);
	sum = proof_over(PROOF_SEED, key, sizeof(*key));
	return lookup_proven(scratch, PROOF_OF(sum, copy), copy->proof);
}

/* Read before any other lookup of the address: results of earlier ones are older than this. */
static __always_inline __u64 lookup_tenure(const struct address *address)
{
	__u64 sum = proof_over(PROOF_SEED, address, sizeof(*address));
	__u32 slot = proof_add(sum, 0) >> 48;
	const __u64 *tenure = tenure_map.lookup(&slot);

	return tenure ? *(const volatile __u64 *)tenure : 0;
}

#endif
