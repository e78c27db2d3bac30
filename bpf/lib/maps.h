/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps themselves; names have at most 15 characters. What fills them is enforcer/datapath/maps.py,
 * except ct, frag, stats and events, which the programs fill.
 */
#ifndef RINGFENCE_MAPS_H
#define RINGFENCE_MAPS_H

#define MAX_ENDPOINTS 1024
#define MAX_ADDRESSES 131072
#define MAX_CIDRS 131072
#define MAX_POLICY 131072
#define MAX_RANGES 32768
#define MAX_SERVICES 32768
#define MAX_CONNECTIONS 262144
#define MAX_FRAGMENTS 4096
#define MAX_LISTENERS 65536
#define MAX_RESIDENTS (2 * MAX_ENDPOINTS)
#define MAX_STATS 16384
#define TUNNEL_WORDS 1024
#define EVENT_PAGES 256

/*
 * What is known about the packet at hand. It lies in a map and not on the stack for the verifier's
 * sake: what is read back from here is just a number, so that the paths of the parser join again
 * instead of each being walked to the end. (One CPU judges one packet at a time.)
 */
struct scratch {
	struct packet packet;
	struct packet quoted;
	struct outcome outcome;
	struct ct_key key;
	struct course course;
	struct policy_question question;
	struct policy_peer peer;
	struct policy_answer answer;
	struct policy_answer candidate;
	struct policy_answer refused;
	/* Copies of what lookups found, and whether one did not prove itself: lookup.h. */
	__u32 unproven;
	__u32 attempts; /* of this packet before */
	__u32 beyond; /* interface of the pod that a packet is for, when to_pod is run from there */
	__u8 sent; /* enum leg on which the proxy sent it */
	__u8 leg; /* enum leg on which it goes to the proxy */
	__u16 listener; /* the proxy's, by port */
	__u32 interface; /* the way to the proxy */
	__u32 pad;
	struct endpoint endpoint;
	struct address_value address;
	struct rule_value rule;
	struct service_value service;
	struct ct_value entry;
	struct frag_value first;
	struct listener_value listening;
	struct resident_value resident;
};

/* BPF_F_NO_PREALLOC, which an LPM trie must have; large values take memory only as needed. */
#define MAP_NO_PREALLOC 1

BPF_TABLE("hash", __u32, struct endpoint, ep_map, MAX_ENDPOINTS);
BPF_TABLE("hash", struct address, struct address_value, addr_map, MAX_ADDRESSES);
BPF_F_TABLE("lpm_trie", struct cidr_key, struct cidr_value, cidr_map, MAX_CIDRS, MAP_NO_PREALLOC);
BPF_TABLE("hash", struct policy_key, struct rule_value, pol_map, MAX_POLICY);
BPF_F_TABLE("lpm_trie", struct range_key, struct range_value, rng_map, MAX_RANGES, MAP_NO_PREALLOC);
BPF_F_TABLE("hash", struct service_key, struct service_value, svc_map, MAX_SERVICES,
	    MAP_NO_PREALLOC);
BPF_TABLE("lru_hash", struct ct_key, struct ct_value, ct_map, MAX_CONNECTIONS);
BPF_TABLE("lru_hash", struct frag_key, struct frag_value, frag_map, MAX_FRAGMENTS);
BPF_TABLE("array", __u32, __u64, tenure_map, TENURE_SLOTS);
BPF_TABLE("percpu_hash", struct stats_key, struct stats_value, stats_map, MAX_STATS);
BPF_TABLE("percpu_array", __u32, __u64, lost_map, LOST_COUNTERS);
BPF_TABLE("array", __u32, struct share_value, share_map, SHARE_SLOTS);
BPF_TABLE("array", __u32, struct share_value, nobody_map, NOBODY_SLOTS);
BPF_TABLE("array", __u32, __u64, quota_map, 1); /* events of a sender in a window; 0: any number */
BPF_TABLE("percpu_array", __u32, struct scratch, scratch_map, 1);
BPF_TABLE("array", __u32, __u64, tunnel_map, TUNNEL_WORDS); /* a bit for each UDP port */
BPF_F_TABLE("hash", __u32, struct listener_value, listen_map, MAX_LISTENERS, MAP_NO_PREALLOC);
BPF_TABLE("array", __u32, struct proxy_value, proxy_map, 1);
BPF_F_TABLE("hash", struct address, struct resident_value, resident_map, MAX_RESIDENTS,
	    MAP_NO_PREALLOC);
/* The programs themselves, by direction: whoever met an unproven value begins again. */
BPF_PROG_ARRAY(again_map, 2);
BPF_TABLE("array", __u32, struct meta_value, meta_map, 1);
BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);

#endif
