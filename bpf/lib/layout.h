/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The bytes of keys and values in the maps. Their meanings are defined in
 * enforcer/policy/tables.py.
 *
 * Update also: the ctypes mirrors in enforcer/datapath/layout.py (a test compares every offset). A
 * change here changes the hash of the pin directory, so old pins are never misread. What an
 * upgrade takes over, struct endpoint and struct ct_value, only ever grows at its end
 * (enforcer/datapath/upgrade.py).
 *
 * A `proof` says whose a value is and that it is whole: lib/proof.h, lib/lookup.h.
 */
#ifndef RINGFENCE_LAYOUT_H
#define RINGFENCE_LAYOUT_H

enum endpoint_flag {
	EP_READY = 1,
	EP_WALL = 2,
	EP_WALL_AUDIT = 4,
	EP_ISOLATED_INGRESS = 8,
	EP_ISOLATED_EGRESS = 16,
	EP_USES_CIDR = 32,
	EP_USES_RANGE = 64,
	EP_ALLOW_MASKED = 128,
	EP_GRACE = 256,
	EP_KEEP_INGRESS = 512,
	EP_KEEP_EGRESS = 1024,
	EP_AUDIT = 2048,
	EP_ENCAPSULATES = 4096,
	EP_REACH = 8192,
	EP_QUARANTINE = 16384,
	EP_AUDIT_INGRESS = 32768,
	EP_SHORTCUT = 65536, /* others on this node may hand its packets to pods past to_pod */
	EP_USES_PLACES = 131072, /* its policies ask whether a peer is a node, or outside */
	EP_USES_DENY = 262144, /* its policies have rules that deny */
};

enum address_flag {
	ADDR_QUARANTINE = 1,
	ADDR_AUDIT = 2,
	ADDR_MOVING = 4,
	ADDR_SERVICE = 8,
};

enum cidr_flag {
	CIDR_IN_CLUSTER = 1,
	CIDR_CROWDED = 2, /* pods in it found no room: unknown senders may not enter from there */
};

enum identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_FIRST_POD = 256,
};

#define PEER_ANY 0U
#define PEER_TENANT (1U << 30)
#define PEER_CIDR (2U << 30)
#define PEER_PLACE 128U /* | identity, of who is no pod: nodes, and whoever is outside */
#define CIDR_PLACE_SHIFT 27 /* of PEER_CIDR: identity + 1 of who is no pod; 0: whoever it is */

#define RULE_DENY (1U << 31) /* what this rule matches is dropped */
#define RULE_REDIRECT (1U << 30) /* the number is a rule set's: the proxy judges requests */
#define RULE_NUMBER (RULE_REDIRECT - 1)
#define ICMP_PORT 256 /* | type of a message: what questions about ICMP have for a port */

/* One pod of this node; the key is the ifindex of its host-side veth. Unset address: all zero. */
struct endpoint {
	__u32 endpoint;
	__u32 group;
	__u32 wall;
	__u32 tenant;
	__u32 reach; /* group of walls that let this pod in; counts only with EP_REACH */
	__u32 flags; /* enum endpoint_flag */
	struct address ip4;
	struct address ip6;
	__u64 grace_until; /* monotonic clock; counts only with EP_GRACE */
	__u8 mac[6]; /* all zero: not known */
	__u8 pad[2];
	__u64 generation; /* no other endpoint of this node ever has it */
	__u64 proof;
};
_Static_assert(sizeof(struct endpoint) == 88, "struct endpoint");

struct address_value {
	__u32 identity;
	__u32 tenant;
	__u32 flags; /* enum address_flag */
	__u32 interface; /* of a pod of this node, for endpoints with EP_SHORTCUT; else 0 */
	__u64 proof;
};
_Static_assert(sizeof(struct address_value) == 24, "struct address_value");

struct policy_key {
	__u32 group;
	__u32 peer;
	__be16 port;
	__u8 protocol;
	__u8 direction;
};
_Static_assert(sizeof(struct policy_key) == 12, "struct policy_key");

/*
 * The port comes last and in network order, so a longest-prefix match over everything before it
 * plus n leading bits of the port is exactly one power-of-two slice of a port range.
 */
struct range_key {
	__u32 prefixlen;
	__u32 group;
	__u32 peer;
	__u8 protocol;
	__u8 direction;
	__be16 port;
};
_Static_assert(sizeof(struct range_key) == 16, "struct range_key");
#define RANGE_KEY_BITS (8 * (sizeof(struct range_key) - sizeof(__u32)))

struct rule_value {
	__u32 rule; /* never 0; with RULE_DENY or RULE_REDIRECT where it does not just allow */
	__u32 flags; /* 0; an entry with another is none */
	__u64 proof;
};
_Static_assert(sizeof(struct rule_value) == 16, "struct rule_value");

/* Where the proxy listens for a rule that redirects; the key is the rule. */
struct listener_value {
	__u32 port;
	__u32 pad;
	__u64 proof;
};
_Static_assert(sizeof(struct listener_value) == 16, "struct listener_value");

/* How the proxy is reached, and what its packets are known by. */
struct proxy_value {
	__u32 interface; /* the node's end of its veth; 0: there is no proxy */
	__u32 secret; /* mark of what comes from there; its LEG_BITS are 0 */
};
_Static_assert(sizeof(struct proxy_value) == 8, "struct proxy_value");

/* Where a pod of this node is, by its address: for what comes from the proxy. */
struct resident_value {
	__u32 interface;
	__u8 mac[6];
	__u8 node_mac[6]; /* of the node's end of the pod's veth */
	__u64 proof;
};
_Static_assert(sizeof(struct resident_value) == 24, "struct resident_value");

/* In a trie nothing changes under its reader: no proof. */
struct range_value {
	__u32 rule; /* as in rule_value */
};
_Static_assert(sizeof(struct range_value) == 4, "struct range_value");

/*
 * Every tenant has a trie of its own, so that one's blocks cost no other one entries; and the
 * family comes before the address, so that ::/0 does not match what is really IPv4.
 */
struct cidr_key {
	__u32 prefixlen; /* counts from 32; of IPv4 from 32 + 96 */
	__u32 trie; /* the endpoint's tenant << 1, plus 1 for IPv6 */
	__u8 address[16]; /* a struct address, which would want to be aligned */
};
_Static_assert(sizeof(struct cidr_key) == 24, "struct cidr_key");
#define CIDR_KEY_BITS (8 * (sizeof(struct cidr_key) - sizeof(__u32)))

struct cidr_value {
	__u32 cidr;
	__u32 flags; /* enum cidr_flag */
};
_Static_assert(sizeof(struct cidr_value) == 8, "struct cidr_value");

/* What a pod calls: a virtual address and port. Its packets go on to a backend after our hook. */
struct service_key {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 pad[5];
};
_Static_assert(sizeof(struct service_key) == 24, "struct service_key");

struct service_backend {
	struct address address;
	__be16 port;
	__u8 pad[6];
};
_Static_assert(sizeof(struct service_backend) == 24, "struct service_backend");

/* One backend for each class that policies tell apart; none: the Service is closed. */
#define SERVICE_BACKENDS 16
struct service_value {
	__u32 count;
	__u32 pad;
	struct service_backend backends[SERVICE_BACKENDS];
	__u64 proof;
};
_Static_assert(sizeof(struct service_value) == 400, "struct service_value");

/*
 * One canonical orientation: the pod is `local`, whoever opened. ICMP echo keeps its identifier in
 * both ports; the ICMP type is never a port. The endpoint is in the key, so that an entry made at
 * one veth can never open another.
 */
struct ct_key {
	struct address local;
	struct address remote;
	__u32 endpoint;
	__be16 local_port;
	__be16 remote_port;
	__u8 protocol;
	__u8 pad[7];
};
_Static_assert(sizeof(struct ct_key) == 48, "struct ct_key");

enum ct_flag {
	CT_REPLIED = 1,
	CT_FIN_OPENER = 2,
	CT_FIN_REPLY = 4,
	CT_RST = 8,
	CT_ADOPTED = 16, /* first seen in mid-stream */
	CT_REFUSED = 32, /* cut by a change of policies */
	CT_KEPT = 64, /* goes on although policies changed */
};

/* Only `last` and `flags` change while an entry lives, each by compare-and-exchange. */
struct ct_value {
	__u64 last; /* monotonic clock, refreshed at most every CT_TOUCH */
	__u32 group;
	__u32 rule;
	__u32 seal; /* the low half of `proof`, in one word with the flags */
	__u8 opener; /* enum direction */
	__u8 flags; /* enum ct_flag */
	__u8 reason; /* enum reason of the opener direction */
	__u8 pad;
	__u64 generation; /* of the endpoint when it was judged */
	__u64 tenure; /* of the remote address then */
	__u64 proof; /* but for `last` and `flags` */
};
_Static_assert(sizeof(struct ct_value) == 48, "struct ct_value");

/*
 * When something was last written about an address; addresses share a slot by their hash. What was
 * judged before is judged again.
 */
#define TENURE_SLOTS 65536 /* as many as 16 bits tell apart */

/* The ports of a datagram whose later fragments carry none. */
struct frag_key {
	struct address source;
	struct address destination;
	__u32 endpoint;
	__u32 id;
	__u8 protocol;
	__u8 direction;
	__u8 pad[6];
};
_Static_assert(sizeof(struct frag_key) == 48, "struct frag_key");

struct frag_value {
	__u64 last;
	__be16 source_port;
	__be16 destination_port;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 kind; /* enum packet_kind */
	__u8 protocol; /* of the datagram; an IPv6 fragment may name an extension header instead */
	__u64 proof;
};
_Static_assert(sizeof(struct frag_value) == 24, "struct frag_value");

/* `rule` is the rule that allowed; without one, the policy group that spoke (by_group is 1). */
struct stats_key {
	__u32 endpoint;
	__u32 rule;
	__u8 direction;
	__u8 reason;
	__u8 by_group;
	__u8 verdict;
};
_Static_assert(sizeof(struct stats_key) == 12, "struct stats_key");

struct stats_value {
	__u64 packets;
	__u64 bytes;
};
_Static_assert(sizeof(struct stats_value) == 16, "struct stats_value");

enum event_flag {
	EVENT_REPLY = 1, /* answers the opener of a known connection */
	EVENT_MID_STREAM = 2, /* first seen without the start of its connection */
	EVENT_REJUDGED = 4, /* known connection, judged again after a policy change */
	EVENT_MASKED = 8, /* a node address without a local socket */
};

struct flow_event {
	__u64 time; /* monotonic clock */
	__u32 endpoint;
	__u32 ifindex;
	__u32 rule;
	__u32 group;
	__u32 identity; /* of the peer */
	__u32 tenant; /* of the peer */
	__u32 length;
	__u32 reserved;
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__be16 ethertype;
	__u8 family; /* 4, 6 or 0 */
	__u8 protocol;
	__u8 direction;
	__u8 verdict;
	__u8 reason;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 flags; /* enum event_flag */
	__u8 pad;
};
_Static_assert(sizeof(struct flow_event) == 88, "struct flow_event");

enum lost_counter {
	LOST_EVENTS = 0,
	LOST_STATS = 1,
	LOST_HELD_BACK = 2, /* events beyond a sender's share */
	LOST_COUNTERS = 3,
};

/* A rate limit's use: of events by sender, and of packets to unused addresses by pod. */
struct share_value {
	__u64 window; /* of time, by its number */
	__u64 had;
};
_Static_assert(sizeof(struct share_value) == 16, "struct share_value");
#define SHARE_SLOTS 4096 /* by hash of the sender, every other one for drops */
#define NOBODY_SLOTS 1024 /* by endpoint */
#define NOBODY_QUOTA 32 /* in a window */
#define SHARE_WINDOW 30 /* bits of nanoseconds: about a second */

#define LAYOUT_HASH_BYTES 32
struct meta_value {
	__u8 hash[LAYOUT_HASH_BYTES];
};
_Static_assert(sizeof(struct meta_value) == 32, "struct meta_value");

#endif
